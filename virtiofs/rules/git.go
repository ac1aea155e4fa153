package rules

import (
	"io/fs"
	"path"
	"strings"
)

// The names of the rules for Git. What they are for cannot be said in patterns.
const (
	gitHooks  = "git-hooks"
	gitConfig = "git-config"
	gitDir    = "git-dir"
)

// isRefs tells whether a directory of Git's holds names of branches, which can be any.
func isRefs(name string) bool { return name == "refs" || name == "logs" }

// isConfig tells whether Git takes settings from a file of that name.
func isConfig(name string) bool { return name == "config" || name == "config.worktree" }

// isGitDir tells whether a directory of that name is a repository of Git: .git, or NAME.git as bare ones are called.
func isGitDir(name string) bool { return strings.HasSuffix(name, ".git") }

// isGitConfig tells whether the path is that of settings in a directory of Git.
func isGitConfig(names []string) bool {
	for i, name := range names {
		if within := names[i+1:]; isGitDir(name) && len(within) > 0 && !isRefs(within[0]) && isConfig(within[len(within)-1]) {
			return true
		}
	}
	return false
}

func refuse(rule, reason string) Verdict { return Verdict{Refused: true, Rule: rule, Reason: reason} }

// judgeGit is for what makes Git on the host execute something.
func judgeGit(a Access, names []string) Verdict {
	switch {
	case a.Operation == Read || len(names) == 0:
		return Verdict{}
	case a.Operation == Change: // git init tries whether the mode of its settings can be changed
		return judgeGitHooks(a, names)
	}
	if v := judgeGitName(a, names); v.Refused {
		return v
	}
	if v := judgeGitHooks(a, names); v.Refused {
		return v
	}
	if isGitConfig(names) {
		return judgeGitConfig(a)
	}
	return Verdict{}
}

// judgeGitName is for which files and directories may have which names.
func judgeGitName(a Access, names []string) Verdict {
	last := names[len(names)-1]
	inGit := false
	for i, name := range names[:len(names)-1] {
		if !isGitDir(name) {
			continue
		}
		inGit = true
		if v := judgeWithinGit(a, names[i+1:]); v.Refused {
			return v
		}
	}
	isDir := a.Type.IsDir()
	switch {
	case last == ".git" && (a.Operation == Write || a.Operation == Make && !isDir):
		return refuse(gitDir, "Git takes hooks and settings from where it leads")
	case last == ".git" && a.Operation == Remove && !isDir:
		return refuse(gitDir, "without it, Git takes hooks and settings from elsewhere")
	case isGitDir(last) && a.Operation == Make && isDir && a.Moved:
		return refuse(gitDir, moved)
	case isGitDir(last) && a.Operation == Remove && isDir && !a.Empty:
		return refuse(gitDir, "its hooks and settings would not be protected under another name")
	case !inGit && a.Operation != Remove && !isDir && path.Base(a.Path) == "HEAD":
		// With a few directories beside it, any directory is a bare repository with settings: safe.bareRepository in
		// git-config(1). The name is compared as it is, because others, such as head, are those of programs.
		return refuse(gitDir, "with it, Git takes the directory for a repository with hooks and settings")
	}
	return Verdict{}
}

// judgeWithinGit is for names in a directory of Git.
func judgeWithinGit(a Access, names []string) Verdict {
	last := names[len(names)-1]
	switch {
	case a.Operation == Make && a.Type&fs.ModeSymlink != 0 && !isGitProbe(a, last):
		return refuse(gitDir, "Git follows links in its directory to what is not protected")
	case a.Operation == Make && a.Type.IsDir() && a.Moved:
		return refuse(gitDir, moved)
	case a.Operation == Remove && a.Type.IsDir() && !a.Empty:
		return refuse(gitDir, "what is in it would not be protected under another name")
	case isRefs(names[0]) || a.Operation == Remove:
	case last == "commondir":
		return refuse(gitDir, "Git takes hooks and settings from where it leads")
	case last == "alternates" && len(names) > 2 && names[len(names)-2] == "info" && names[len(names)-3] == "objects":
		return refuse(gitDir, "other guests would have the objects to which it leads")
	case len(names) > 1 && (names[0] == "remotes" || names[0] == "branches"):
		return refuse(gitDir, "it is the old form of a remote's settings")
	}
	return Verdict{}
}

// isGitProbe tells whether a link is the one with which git init finds out whether links can be made. It is removed at once.
func isGitProbe(a Access, name string) bool {
	return !a.Moved && a.Link == "testing" && len(name) == len("tXXXXXX") && name[0] == 't'
}

// judgeGitHooks keeps the hooks as they are. Samples, which Git does not execute, can come and go, as git init copies them;
// their directory can as long as it is empty.
func judgeGitHooks(a Access, names []string) Verdict {
	for i, name := range names {
		within := names[i+1:]
		if !isGitDir(name) || len(within) == 0 || isRefs(within[0]) {
			continue
		}
		for j, name := range within {
			if name != "hooks" || isHarmlessHook(a, within[j+1:]) {
				continue
			}
			return refuse(gitHooks, "Git executes it on the host")
		}
	}
	return Verdict{}
}

// isHarmlessHook is for what has that name in the directory of hooks, or for the directory itself.
func isHarmlessHook(a Access, names []string) bool {
	switch len(names) {
	case 0:
		return a.Type.IsDir() && (a.Operation == Make && !a.Moved || a.Operation == Remove && a.Empty)
	case 1:
		return strings.HasSuffix(names[0], ".sample") && a.Type.Type() == 0 && (a.Operation == Make && !a.Moved || a.Operation == Remove)
	}
	return false
}

// judgeGitConfig is for the settings of a repository, which Git replaces as a whole: it writes config.lock, and renames it.
func judgeGitConfig(a Access) Verdict {
	if a.Type.IsDir() {
		return Verdict{} // a submodule can have the name
	}
	var reason string
	switch {
	case a.Operation == Write:
		reason = "Git replaces its settings as a whole, and does not write into them"
	case a.Type.Type() != 0:
		reason = "Git takes settings from where it leads"
	case a.Content == nil:
		reason = "what Git would take for its settings cannot be known"
	case a.Operation == Remove:
		reason = judgeSettings(nil, a.Content)
	default:
		reason = judgeSettings(a.Content, a.Old)
	}
	if reason == "" {
		return Verdict{}
	}
	return refuse(gitConfig, reason)
}
