#include <cerrno>
#include <system_error>

#include "disk/file.hpp"

namespace pccl::disk {

namespace {

const char* verb_of(Call call, Purpose purpose) {
  switch (call) {
    case Call::open:
      return purpose == Purpose::read ? "open" : "make";
    case Call::allocate:
      return "reserve room for";
    case Call::truncate:
      return "cut to its length";
    case Call::pread:
      return "read";
    case Call::fdatasync:
      return "bring to the device";
    case Call::close:
      return "close";
    case Call::rename:
      return "rename";
    case Call::unlink:
      return "remove";
    case Call::mkdir:
      return "make";
    case Call::facts:
      return "examine";
    default:
      return "write";
  }
}

const char* help_when_reading(int error) {
  switch (error) {
    case ENOENT:
      return "the file is gone: load an older checkpoint or another copy";
    case EIO:
    case ENODATA:
      return "the device failed (see dmesg): load an older checkpoint or another copy, and replace the "
             "device";
    case EACCES:
    case EPERM:
      return "give this user the right to read it";
    default:
      return "load an older checkpoint or another copy";
  }
}

const char* help_when_writing(int error) {
  switch (error) {
    case ENOSPC:
    case EDQUOT:
      return "free space, keep fewer checkpoints, or choose another folder";
    case EROFS:
      return "remount it for writing (see dmesg: an error of the device may have switched it), or choose "
             "another "
             "folder";
    case EIO:
      return "the device failed (see dmesg): choose another folder, and do not trust what was written last";
    case EACCES:
    case EPERM:
      return "give this user the right to write there, or choose another folder";
    case ENOENT:
    case ENOTDIR:
      return "make the folder first, and keep it while a checkpoint is written";
    case ELOOP:
      return "it is a symbolic link, which is not written through: remove it";
    case EFBIG:
      return "raise the limit on the size of files (ulimit -f), or choose a file system that takes so large "
             "ones";
    case ENAMETOOLONG:
      return "choose a folder with a shorter name";
    default:
      return "try again, or choose another folder";
  }
}

bool is_loss(int error) {
  return error == ENOENT || error == EIO || error == ENODATA || error == EUCLEAN || error == EBADMSG ||
         error == ESTALE || error == EISDIR || error == ENOTDIR;
}

}  // namespace

Error failure(Call call, Purpose purpose, const std::string& path, int error) {
  const bool files_ended = error == EMFILE || error == ENFILE;
  const auto* help = files_ended                ? "raise the limit on open files (ulimit -n)"
                     : purpose == Purpose::read ? help_when_reading(error)
                                                : help_when_writing(error);
  return {purpose == Purpose::read && is_loss(error) ? ErrorCode::damaged : ErrorCode::checkpoint,
          std::string("cannot ") + verb_of(call, purpose) + " " + path + ": " +
              std::generic_category().message(error) + "; " + help};
}

}  // namespace pccl::disk
