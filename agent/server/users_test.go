//go:build linux

package server

import (
	"fmt"
	"os"
	"testing"
)

func TestUsersOfARoot(t *testing.T) {
	etc := t.TempDir()
	write(t, etc+"/passwd", "root:x:0:0:root:/root:/bin/bash\nbroken\nagent:x:5:5::/other:/bin/false\nnoshell:x:7:8::/n:\nbad:x:x:1::/:/bin/sh\n")
	write(t, etc+"/group", "root:x:0:\nagent:x:1000:\nvideo:x:44:other,agent\nkvm:x:108:agent,other\nagents:x:9:agent2\nbroken\n")
	users := Accounts{Etc: etc, Default: User{Name: "agent", UID: 1000, GID: 1000, Home: "/home/agent", Shell: "/usr/bin/zsh"}}
	for name, want := range map[string]string{
		"":        "{agent 1000 1000 [1000 44 108] /home/agent /usr/bin/zsh}",
		"agent":   "{agent 1000 1000 [1000 44 108] /home/agent /usr/bin/zsh}",
		"root":    "{root 0 0 [0] /root /bin/bash}",
		"noshell": "{noshell 7 8 [8] /n /bin/sh}",
	} {
		if got, err := users.Lookup(name); err != nil || fmt.Sprint(got) != want {
			t.Errorf("%q: %v, %v; want %s", name, got, err, want)
		}
	}
	for _, name := range []string{"bad", "stranger", "broken"} {
		if user, err := users.Lookup(name); err == nil {
			t.Errorf("%q was found: %v", name, user)
		}
	}
	group, err := os.ReadFile(etc + "/group")
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{"video": "44 true", "root": "0 true", "broken": "0 false", "nobody": "0 false"} {
		if gid, ok := FindGroup(string(group), name); fmt.Sprint(gid, ok) != want {
			t.Errorf("the group %s: %d, %v", name, gid, ok)
		}
	}
	// Without these files the image's own user exists all the same.
	if _, err := (Accounts{Etc: t.TempDir(), Default: users.Default}).Lookup(""); err != nil {
		t.Error(err)
	}
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}
