package machine

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/sourcery-zone/sandbox/internal/remedy"
	"github.com/sourcery-zone/sandbox/virtiofs"
)

// repository makes a directory with a repository's configuration.
func repository(t *testing.T, config string) string {
	t.Helper()
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, ".git"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, ".git/config"), []byte(config), 0o644); err != nil {
		t.Fatal(err)
	}
	return dir
}

func origin(address string) string {
	return "[core]\n\tbare = false\n[remote \"origin\"]\n\turl = " + address + "\n"
}

func TestARuleForARemoteOpensWhereItLeads(t *testing.T) {
	for config, want := range map[string]string{
		origin("https://github.com/o/r.git"):                                       "git:https://github.com/o/r.git",
		origin("https://user:secret@github.com/o/r"):                               "git:https://github.com/o/r",
		origin("https://git.example:8443/o/r") + "\tpushurl = https://b.example/r": "git:https://git.example:8443/o/r git:https://b.example/r",
		origin("\"https://github.com/o/r\" ; a comment"):                           "git:https://github.com/o/r",
		// What would have Git read or execute something else.
		origin("https://github.com/o/r") + "[include]\n\tpath = /dev/stdin\n[core]\n\tfsmonitor = touch /tmp/x\n[url \"https://evil.example/\"]\n\tinsteadOf = https://github.com/\n": "git:https://github.com/o/r",
	} {
		got, err := ResolveRemotes([]string{"api.example.com", "git:origin"}, []virtiofs.Share{{Source: t.TempDir()}, {Source: repository(t, config)}, {Source: repository(t, config)}})
		if err != nil || !slices.Equal(got, append([]string{"api.example.com"}, strings.Fields(want)...)) {
			t.Errorf("%s\n%q, %v, want %s", config, got, err, want)
		}
	}
	if got, err := ResolveRemotes([]string{"git:https://github.com/o/r"}, nil); err != nil || len(got) != 1 {
		t.Errorf("a rule that names no remote: %q, %v", got, err)
	}
}

func TestARemoteThatNoRuleOpensSaysWhatToDo(t *testing.T) {
	pipe := repository(t, "")
	config := filepath.Join(pipe, ".git/config")
	if err := os.Remove(config); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mkfifo(config, 0o644); err != nil {
		t.Fatal(err)
	}
	outside := repository(t, "")
	config = filepath.Join(outside, ".git/config")
	if err := os.Remove(config); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(filepath.Join(repository(t, origin("https://github.com/o/r")), ".git/config"), config); err != nil {
		t.Fatal(err)
	}
	worktree := t.TempDir()
	if err := os.WriteFile(filepath.Join(worktree, ".git"), []byte("gitdir: /x"), 0o644); err != nil {
		t.Fatal(err)
	}
	for dir, want := range map[string]string{
		repository(t, origin("git@github.com:o/r.git")):                  "use https, as by git remote set-url origin https://github.com/o/r.git",
		repository(t, origin("ssh://git@git.example:2222/o/r")):          "set-url origin https://git.example/o/r",
		repository(t, origin("http://github.com/o/r")):                   "by https",
		repository(t, origin("../elsewhere")):                            "not on the network",
		repository(t, origin("/srv/git/r")):                              "not on the network",
		repository(t, origin("https://github.com/o/../x")):               "leads up",
		repository(t, origin("ext::sh -c touch% /tmp/x")):                "",
		repository(t, "[remote \"other\"]\nurl = https://a.example/r\n"): "there is none",
		repository(t, "[remote \"origin\""):                              "reading",
		t.TempDir():                                                      "there is none",
		pipe:                                                             "is no file",
		outside:                                                          "escapes",
		worktree:                                                         "is a worktree",
	} {
		_, err := ResolveRemotes([]string{"git:origin"}, []virtiofs.Share{{Source: dir}})
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
	}
	_, err := ResolveRemotes([]string{"git:origin"}, []virtiofs.Share{{Source: repository(t, origin("http://user:secret@github.com/o/r"))}})
	if err == nil || strings.Contains(err.Error(), "secret") || !strings.Contains(err.Error(), `is "http://github.com/o/r": the rule`) {
		t.Errorf("of one with a password, the error is %v", err)
	}
	_, err = ResolveRemotes([]string{"git:origin"}, []virtiofs.Share{{Source: repository(t, origin("ssh://git@git.example:2222/o/r"))}})
	if got := remedy.Of(err); len(got) != 1 || got[0].String() != "set allow git.example:2222" {
		t.Errorf("the remedy is %v", got)
	}
}
