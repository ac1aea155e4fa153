// Package rules decides what a guest may do to the files of a shared directory.
//
// What the host executes by itself, such as hooks of Git and tasks of an editor, is frozen in a writable share, and what
// holds keys cannot be read in any. The decision is a pure function of the path in the share, of what is done there, and,
// where that matters, of what would be there afterwards: [Set.Judge]. Nothing here touches a file. Two ask it: the gate in
// front of virtiofsd for live shares, and whoever applies a guest's copy to the host's directory.
//
// The rules hold for names that do not exist yet, at any depth, and for each form of a name that some file system of the
// host takes for the same one. They see to it that what is frozen does not come by another way either:
//
//   - A directory cannot be renamed to a name below which something is frozen (x to .vscode), because its files were judged
//     under another one, nor can one that is there be renamed away. Directories above can (app to app2), because patterns
//     are for any depth.
//   - A symbolic link cannot get such a name.
//   - A frozen file gets no other name by a hard link.
//
// What cannot be read cannot be written either: otherwise it could be renamed to a name that can be read, and what a
// guest made there it could not read again. Files that may hold a secret key, such as *.pem, are judged by their content,
// because most are certificates, which programs need; new ones can be made, and cannot be read afterwards if they hold one.
//
// # Git
//
// git init, clone, commit, remote add, branch, stash, rebase and gc work in a share. Git replaces its settings as a whole
// (it writes config.lock and renames it), so their content is judged at the rename: all have to be known as harmless, or have
// been there before. Hooks are frozen, but samples of them, which git init copies, may come and go.
//
// What does not work is what needs .git to be a file: git worktree add, git submodule add and update, and git init
// --separate-git-dir. Git writes such a file in place, so that its content cannot be judged, and it leads to a directory
// that no rule would know as Git's. For the same reason there are no symbolic links in .git, no HEAD outside of directories
// named .git or NAME.git (which would make any directory a bare repository), and a submodule can have no branch that is
// named config or hooks.
package rules
