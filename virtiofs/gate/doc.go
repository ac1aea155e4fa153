// Package gate stands between a file server and the files that it serves: what a guest does to the names and files of a
// share is judged before it happens, and told to whoever keeps a record.
//
// The server is virtiofsd. A filter around it (seccomp_unotify(2), [Filter]) makes the kernel ask us about the system
// calls by which it changes something. We find out which path of the share they mean, ask a [Judge], and the call goes on
// or fails with EACCES. What it does most, looking names up, reading and writing what is open, is not asked.
//
// virtiofsd 1.13 comes to its files by these calls. N is the number of a descriptor that it has opened with O_PATH when
// the guest looked the name up, and proc its directory /proc/self/fd:
//
//	LOOKUP               openat(dir, name, O_PATH|O_NOFOLLOW)          not asked: it gives no access
//	OPENDIR              openat(proc, "N", O_DIRECTORY)                not asked: names are not hidden
//	OPEN                 openat(proc, "N", flags)                      Write by its flags, else Read if anything is hidden
//	CREATE               openat(dir, name, O_CREAT|O_EXCL|O_NOFOLLOW)  Make; what is there already is opened as above
//	SETATTR size         openat(proc, "N", O_RDWR), or an open file    Write
//	SETATTR mode         fchmodat(proc, "N"), fchmod of an open file   Change
//	SETATTR owner        fchownat(N, "", AT_EMPTY_PATH)                Change
//	SETATTR times        utimensat                                     not asked: nothing executes times; with touches,
//	                                                                   whether it is TouchTime
//	MKDIR, MKNOD         mkdirat, mknodat(dir, name)                   Make; devices are refused
//	SYMLINK              symlinkat(target, dir, name)                  Make
//	LINK                 linkat(proc, "N", dir, name)                  Write of the old name, Make of the new one
//	RENAME               renameat2(dir, name, dir, name, flags)        Remove and Make, both ways for an exchange
//	UNLINK, RMDIR        unlinkat(dir, name)                           Remove
//	WRITE, FALLOCATE,    pwritev2, fallocate, copy_file_range,         not asked: the file was opened to be written; with
//	COPY_FILE_RANGE      ftruncate of an open file                     a Meter, all but ftruncate are, for what they add
//	SETXATTR, TMPFILE    none: it offers neither                       refused, as is all else that changes files
//
// A restored guest's nodes are looked up by O_PATH and its open files opened by "N" again, and so are judged again.
//
// # What is judged is what happens
//
// Names are read from virtiofsd's memory, which no guest can write; virtiofsd copies each request before it reads it. A
// name has one part: one with a slash, or "..", comes from no kernel and fails with EINVAL, because virtiofsd would follow
// symbolic links in it. The directory is a descriptor of virtiofsd's, which /proc shows us, and its path is the
// kernel's, so symbolic links, mounts, ".." and the guest's earlier names are no way around a rule. virtiofsd makes the
// calls of one guest one after the other.
//
// Between our answer and the call, another guest that shares the directory, or the host, can rename what is above. So for
// the rules to hold, none may come to count for a path by a rename that they allow: a directory that is renamed is refused
// a name under which its content would be protected ([rules.Access.Moved]), and where directories are protected, so is
// renaming what is above or them. Then a path that was judged is no more protected a moment later, unless the host's user
// made it so. For this reason the call goes on as virtiofsd's, with its power over files and no other, and we do not hand
// in a file that we have opened: as an ordinary user, we could not open all that virtiofsd can, and as root more.
//
// Where content decides, what was judged is copied to a file that nobody else has ever had open, and that gets the name
// (see replacement): neither an open file nor another name for the old one leads to it.
//
// # What a question costs
//
// Two changes between threads, of virtiofsd's and ours, are more than half of it. The rest are up to five system calls, by
// which we read the name, where its directory is, and what has it, and the rules. Nothing of that is remembered for the next
// question: virtiofsd's descriptors get other directories' when its guest forgets those, a directory's path changes with
// whatever the host or another guest renames above it, and no event tells of that before the call would go on. The filter
// cannot answer itself, because it sees numbers and no names.
//
// # What is not covered
//
//   - A virtiofsd that its guest has taken over can change the names after they were judged. It is then still confined to
//     the share.
//   - A file that has a second name, a hard link that the host made, is known by the name that the guest looked up first.
//   - Through a symbolic link of the host the guest goes itself, by the path that it leads to, which is what is judged.
//   - On a file system that folds case, names are judged as they are asked for when they are made.
//   - Directories whose path from the root of the mount namespace is longer than 4095 bytes cannot be changed in.
//   - A virtiofsd that its guest has taken over can write by calls that a [Meter] does not see.
//   - Names of what is hidden can be seen, with sizes and times.
package gate
