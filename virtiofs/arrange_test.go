package virtiofs

import (
	"os"
	"reflect"
	"strings"
	"testing"
)

func TestArrangeRefusesTargetsThatHideTheGuest(t *testing.T) {
	for _, target := range []string{
		"/", "/home", "/usr", "/etc", "/etc/ssh", "/usr/bin", "/usr/lib/modules", "/proc/x", "/dev", "/run/user", "/nix/store", "/var", "/tmp", "/root", "/sys/", "/srv/../etc",
	} {
		_, err := Arrange([]Share{{Source: "/src", Target: target}}, "/home/agent")
		if err == nil || !strings.Contains(err.Error(), "hide the guest's") || !strings.Contains(err.Error(), "choose") {
			t.Errorf("target %s: %v; want a refusal with a remedy", target, err)
		}
	}
	for _, target := range []string{"app", "a/b", "/srv", "/mnt/x", "/opt", "/usr/src/app", "/var/www", "/root/x", "/tmp/x", "/home/other", "/etcetera"} {
		if _, err := Arrange([]Share{{Source: "/src", Target: target}}, "/home/agent"); err != nil {
			t.Errorf("target %s: %v", target, err)
		}
	}
}

func TestArrangeRefusesTwoSharesAtOnePlace(t *testing.T) {
	_, err := Arrange([]Share{{Source: "/a/app", Target: "app"}, {Source: "/c", Target: "/srv"}, {Source: "/b/app", Target: "app"}}, "/home/agent")
	if err == nil {
		t.Fatal("no error")
	}
	for _, want := range []string{"/a/app", "/b/app", "same place", "/b/app:app-2"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%q does not name %s", err, want)
		}
	}
}

func TestArrangeMountsOuterSharesFirst(t *testing.T) {
	project, other := resolvedTempDir(t), resolvedTempDir(t)
	mkdir(t, project, ".git", "hooks")
	got, err := Arrange([]Share{
		{Source: project + "/.git/hooks", Target: "app/.git/hooks", ReadOnly: true},
		{Source: other, Target: "/srv/data"},
		{Source: project, Target: "/home/agent/app"},
		{Source: project + "/.git", Target: "app/.git"},
	}, "/home/agent")
	if err != nil {
		t.Fatal(err)
	}
	want := []Share{
		{Source: other, Target: "/srv/data"},
		{Source: project, Target: "/home/agent/app"},
		{Source: project + "/.git", Target: "/home/agent/app/.git"},
		{Source: project + "/.git/hooks", Target: "/home/agent/app/.git/hooks", ReadOnly: true},
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, want %+v", got, want)
	}
}

func TestArrangeRefuses(t *testing.T) {
	dir := resolvedTempDir(t)
	if err := os.Symlink("/etc", dir+"/planted"); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		name   string
		shares []Share
		want   string
	}{
		{"the guest's home", []Share{{Source: dir, Target: "/home/agent"}}, "hide the guest's home"},
		{"above the guest's home", []Share{{Source: dir, Target: "/home"}}, "hide the guest's home"},
		{"relative and absolute at one place", []Share{{Source: dir, Target: "a"}, {Source: "/b", Target: "/home/agent/a"}}, "same place"},
		{"a link for a mount point", []Share{{Source: "/b", Target: "a/planted"}, {Source: dir, Target: "a"}}, dir + "/planted is a symbolic link"},
		{"a mount point behind a link", []Share{{Source: "/b", Target: "a/planted/ssh"}, {Source: dir, Target: "a"}}, dir + "/planted is a symbolic link"},
		{"no mount point", []Share{{Source: "/b", Target: "a/data"}, {Source: dir, Target: "a"}}, "mkdir -p " + dir + "/data"},
	} {
		if _, err := Arrange(test.shares, "/home/agent"); err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: %v; want %q", test.name, err, test.want)
		}
	}
	if _, err := Arrange(nil, "home"); err == nil {
		t.Error("a relative home is accepted")
	}
}
