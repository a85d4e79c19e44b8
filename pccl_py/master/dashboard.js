// Looks at /status.json twice a second. Names come from peers: they are shown as text, never as markup.
"use strict";

const EVERY_MS = 400;

function element(tag, text, kind) {
  const made = document.createElement(tag);
  if (text !== undefined) made.textContent = text;
  if (kind) made.className = kind;
  return made;
}

function table(head, rows) {
  const made = element("table");
  const add = (cells, tag) => {
    const row = element("tr");
    for (const cell of cells) row.append(cell instanceof Node ? cell : element(tag, cell));
    made.append(row);
  };
  add(head, "th");
  for (const row of rows) add(row, "td");
  return made;
}

function bytes(count) {
  const units = ["B", "kB", "MB", "GB", "TB"];
  let unit = 0;
  while (count >= 1000 && unit < units.length - 1) [count, unit] = [count / 1000, unit + 1];
  return `${count.toFixed(unit ? 1 : 0)} ${units[unit]}`;
}

function seconds(value) {
  return value < 1 ? `${(value * 1000).toFixed(1)} ms` : value < 120 ? `${value.toFixed(1)} s` : `${(value / 60).toFixed(0)} min`;
}

function numbers(run) {
  const made = element("div", undefined, "numbers");
  for (const [name, value] of [
    ["members", run.members.length], ["view", run.view.join(".")], ["waiting islands", run.waiting],
    ["operations in flight", run.operations_open], ["commits", run.commits], ["failures", run.failures],
    ["peers gone", run.removed], ["boundaries", run.boundaries], ["master", run.phase],
  ]) {
    const one = element("span", `${name} `);
    one.append(element("b", value));
    made.append(one);
  }
  return made;
}

function member(one, now) {
  const well = one.connected && one.silent_s < 2;
  const state = element("td", well ? "alive" : one.connected ? `silent for ${seconds(one.silent_s)}` : "connection lost", well ? "good" : "bad");
  const shown = Object.entries(one.figures ?? {}).map(([name, value]) =>
    name.endsWith("_at") ? `${name.slice(0, -3)} ${seconds(Math.max(0, now - value))} ago` : `${name} ${value}`);
  return [one.peer, one.island, one.group, one.role, `${one.host} (${one.process})`, state, one.waits_in, shown.join(", ")];
}

function link([from, to, bandwidth, rtt]) {
  return [`${from} → ${to}`, bandwidth ? `${bytes(bandwidth)}/s` : "", rtt ? seconds(rtt) : ""];
}

function failure([age_s, kind, text]) {
  return [`${seconds(age_s)} ago`, element("td", kind, "bad"), text];
}

function operation(one) {
  const why = one.hindrances.map(([peer, , , text]) => `peer ${peer}: ${text}`).join("; ");
  return [`${one.call} ${one.name}`, seconds(one.age_s), `${one.done} of ${one.voters}`, one.absent.join(", "), element("td", why, "bad")];
}

function run(name, found, now) {
  const made = element("section");
  made.append(element("h2", name ? `Run ${name}` : "Run"), numbers(found));
  if (found.door) made.append(element("p", found.door));
  const rings = Object.entries(found.rings).map(([group, ring]) => [group, ring.join(" → ")]);
  for (const [title, head, rows] of [
    ["Members", ["peer", "island", "group", "role", "host (process)", "state", "waits in", "figures"], found.members.map((one) => member(one, now))],
    ["Rings", ["group", "order"], rings],
    ["Links, as measured", ["link", "speed", "round trip"], found.links.map(link)],
    ["Recent failures", ["when", "what", "why"], found.recent_failures.map(failure)],
    ["Operations in flight", ["call", "age", "done", "not come yet", "kept waiting by"], found.operations.map(operation)],
  ]) {
    if (rows.length) made.append(element("h3", title), table(head, rows));
  }
  return made;
}

async function look() {
  const state = document.getElementById("state");
  try {
    const answer = await fetch("status.json", { cache: "no-store" });
    if (!answer.ok) throw new Error(await answer.text());
    const found = await answer.json();
    document.getElementById("runs").replaceChildren(
      ...Object.entries(found.runs).map(([name, one]) => run(name, one, found.time)));
    const events = found.events.slice(-50).reverse();
    document.getElementById("events").replaceChildren(...table([], events.map(
      ([at, of, text]) => [new Date(at * 1000).toLocaleTimeString(), of, text])).childNodes);
    state.textContent = "live";
    state.className = "good";
  } catch (error) {
    state.textContent = `no answer: ${error.message}`;
    state.className = "bad";
  }
  setTimeout(look, EVERY_MS);
}

look();
