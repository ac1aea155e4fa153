package qemu

import (
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func TestUserIsOneThatNobodyElseHas(t *testing.T) {
	const all = "         0          0 4294967295\n"
	for _, tt := range []struct {
		name, uids, gids string
		want             uint32
		ok               bool
	}{
		{"whole machine", all, all, firstUID + 77, true},
		{"rootless container", "0 1000 1\n1 100000 65536\n", "0 1000 1\n1 100000 65536\n", nobody, true},
		{"groups are fewer", all, "0 0 65536\n", nobody, true},
		{"only ourselves", "0 1000 1\n", "0 1000 1\n", 0, false},
		{"not understood", "none\n", all, 0, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if id, ok := chooseUser(tt.uids, tt.gids, 77); id != tt.want || ok != tt.ok {
				t.Errorf("chooseUser = %d, %v; want %d, %v", id, ok, tt.want, tt.ok)
			}
		})
	}
}

func TestOpenedFilesReplacePaths(t *testing.T) {
	dir, err := os.MkdirTemp("", "q") // short: a socket is in it
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	write := func(name string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(name), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	c := minimal()
	c.Kernel, c.Initrd = write("kernel"), write("init rd")
	c.Drives = []Drive{
		{ID: "store", Path: write("store"), Format: "raw", ReadOnly: true},
		{ID: "disk", Path: write("disk"), Format: "qcow2"},
	}
	socket := filepath.Join(dir, "fs0.sock")
	listener, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	c.Shares = []Share{{Tag: "home", Socket: socket}}
	passed := []*os.File{os.Stdin}

	// Whoever runs the test can give files to themselves, and mostly to a group of their number.
	if err := os.Chown(dir, os.Getuid(), os.Getuid()); err != nil {
		t.Skipf("files are given to a user and to the group of the same number (%v): run the test as root, or as a user whose own group has the user's number", err)
	}
	open, files, opened, err := c.OpenFor(&User{ID: uint32(os.Getuid())}, passed)
	if err != nil {
		t.Fatal(err)
	}
	defer closeAll(files[1:])
	args, err := open.Args(capabilities(t, "x86_64-10.0"))
	if err != nil {
		t.Fatal(err)
	}
	line := ShellQuote(args)
	if strings.Contains(line, dir) {
		t.Errorf("QEMU is still to open a path: %s", line)
	}
	for i, part := range []string{"-kernel /proc/self/fd/4", "-initrd /proc/self/fd/5", "filename=/proc/self/fd/6", "filename=/proc/self/fd/7", "socket,id=fs0,fd=8"} {
		if !strings.Contains(line, part) {
			t.Errorf("%q is not in %s", part, line)
		}
		if i < 4 {
			content, err := io.ReadAll(files[i+1])
			if want := []string{"kernel", "init rd", "store", "disk"}[i]; err != nil || string(content) != want {
				t.Errorf("descriptor %d is of %q, %v; want %q", i+4, content, err, want)
			}
		}
	}
	if got, want := Redirections(opened), " 4<"+dir+"/kernel 5<'"+dir+"/init rd' 6<"+dir+"/store 7<>"+dir+"/disk"; got != want {
		t.Errorf("redirections %q, want %q", got, want)
	}
	if info, err := os.Stat(c.Kernel); err != nil || info.Mode().Perm()&0o004 == 0 {
		t.Errorf("another user could not open the kernel: %v, %v", info.Mode(), err)
	}
	if info, err := os.Stat(c.Drives[1].Path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("others than its user could open the disk: %v, %v", info.Mode(), err)
	}

	c.Initrd = filepath.Join(dir, "none")
	if _, files, _, err := c.OpenFor(&User{}, passed); err == nil || !slices.Equal(files, passed) {
		t.Errorf("a missing file: %v, %v", files, err)
	}
}
