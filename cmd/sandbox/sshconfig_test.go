package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

const testConfig = "# ours\nHost *.sandbox\n"

func TestSSHConfigIsInstalledBesideTheUsersOwn(t *testing.T) {
	for name, tt := range map[string]struct{ before, after string }{
		"none":                   {"", "INCLUDE\n"},
		"the user's":             {"Host a\n  User me", "INCLUDE\nHost a\n  User me"},
		"there already":          {"# mine\nINCLUDE\nHost a\n", "# mine\nINCLUDE\nHost a\n"},
		"for one host only":      {"Host a\n  INCLUDE\n", "INCLUDE\nHost a\n  INCLUDE\n"},
		"after a match":          {"match all\nINCLUDE\n", "INCLUDE\nmatch all\nINCLUDE\n"},
		"host with equals":       {"Host=a\nINCLUDE\n", "INCLUDE\nHost=a\nINCLUDE\n"},
		"another's include":      {"Include other\n", "INCLUDE\nInclude other\n"},
		"carriage returns":       {"Host a\r\n", "INCLUDE\r\nHost a\r\n"},
		"after settings for all": {"HostKeyAlias x\n\n INCLUDE\n", "HostKeyAlias x\n\n INCLUDE\n"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), ".ssh")
			ours, theirs := filepath.Join(dir, sshConfigFile), filepath.Join(dir, "config")
			expand := func(s string) string { return strings.ReplaceAll(s, "INCLUDE", `Include "`+ours+`"`) }
			if tt.before != "" {
				if err := os.MkdirAll(dir, 0o700); err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(theirs, []byte(expand(tt.before)), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			for range 2 { // the second time changes nothing
				if _, err := installSSHConfig(dir, testConfig); err != nil {
					t.Fatal(err)
				}
				mustHold(t, theirs, expand(tt.after))
				mustHold(t, ours, testConfig)
			}
			changed, err := installSSHConfig(dir, testConfig)
			if err != nil || len(changed) != 0 {
				t.Errorf("changed %q again, %v", changed, err)
			}
			want := os.FileMode(0o644)
			if tt.before == "" {
				want = 0o600
			}
			if info, err := os.Stat(theirs); err != nil || info.Mode() != want {
				t.Errorf("the mode is %v, %v; want %v", info.Mode(), err, want)
			}
			if left, err := filepath.Glob(filepath.Join(dir, "*")); err != nil || len(left) != 2 {
				t.Errorf("the directory has %q, %v", left, err)
			}
		})
	}
}

func mustHold(t *testing.T, path, want string) {
	t.Helper()
	if got, err := os.ReadFile(path); err != nil || string(got) != want {
		t.Errorf("%s holds %q, %v; want %q", path, got, err, want)
	}
}

func TestSSHConfigKeepsALinkToTheUsersFile(t *testing.T) {
	root := t.TempDir()
	dir, real := filepath.Join(root, ".ssh"), filepath.Join(root, "dotfiles")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("../dotfiles", filepath.Join(dir, "config")); err != nil {
		t.Fatal(err)
	}
	if _, err := installSSHConfig(dir, testConfig); err == nil {
		t.Error("a link to nothing was followed")
	}
	if err := os.WriteFile(real, []byte("Host a\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := installSSHConfig(dir, testConfig); err != nil {
		t.Fatal(err)
	}
	if target, err := os.Readlink(filepath.Join(dir, "config")); err != nil || target != "../dotfiles" {
		t.Errorf("the link is %q, %v", target, err)
	}
	mustHold(t, real, `Include "`+filepath.Join(dir, sshConfigFile)+"\"\nHost a\n")
}

// What ssh itself makes of it, for a program in a place with awkward letters.
func TestSSHUnderstandsTheConfiguration(t *testing.T) {
	ssh, err := exec.LookPath("ssh")
	if err != nil {
		t.Skip("needs ssh: install openssh-client")
	}
	options, err := sshOptions("/opt/100% my/sandbox")
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "config")
	if err := os.WriteFile(file, []byte(sshConfig([]string{"work.sandbox", "*.sandbox"}, options)), 0o600); err != nil {
		t.Fatal(err)
	}
	for host, ours := range map[string]bool{"work.sandbox": true, "new.sandbox": true, "example.org": false} {
		out, err := exec.Command(ssh, "-G", "-F", file, host).CombinedOutput()
		if err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		if got := strings.Contains(string(out), "\nproxycommand '/opt/100%% my/sandbox' proxy '%h'\n"); got != ours {
			t.Errorf("%s: ours %t, want %t\n%s", host, got, ours, out)
		}
		if got := strings.Contains(string(out), "\nstricthostkeychecking true\n"); got != ours {
			t.Errorf("%s: strict %t, want %t", host, got, ours)
		}
	}
	// The shell reads the host's name as one word, whatever it is.
	made := filepath.Join(t.TempDir(), "made")
	for _, host := range []string{"$(touch " + made + ").sandbox", "x;touch${IFS}" + made + ";.sandbox", "`touch " + made + "`.sandbox", "';touch " + made + ";'.sandbox"} {
		if out, err := exec.Command(ssh, "-F", file, host, "true").CombinedOutput(); err == nil {
			t.Errorf("ssh to %s succeeded: %s", host, out)
		}
		if _, err := os.Stat(made); err == nil {
			t.Fatalf("the name %s was run by a shell", host)
		}
	}
	if _, err := sshOptions(`/it's/sandbox`); err == nil {
		t.Error("a path that cannot be quoted was accepted")
	}
}
