package qemu

import (
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

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
		{ID: "disk", Path: write("disk"), Format: "qcow2", Backing: []string{write("below")}},
	}
	socket := filepath.Join(dir, "fs0.sock")
	listener, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	c.Shares = []Share{{Tag: "home", Socket: socket}}
	passed := []*os.File{os.Stdin}
	open, in, err := c.inherit(passed)
	if err != nil {
		t.Fatal(err)
	}
	defer in.close()
	args, err := open.Args(capabilities(t, "x86_64-10.0"))
	if err != nil {
		t.Fatal(err)
	}
	line := ShellQuote(args)
	if strings.Contains(line, dir) {
		t.Errorf("QEMU is still to open a path: %s", line)
	}
	for _, part := range []string{
		"-kernel /proc/self/fd/4", "-initrd /proc/self/fd/5", "-add-fd fd=6,set=1", "filename=/dev/fdset/1",
		"-add-fd fd=8,set=2", "filename=/dev/fdset/2", "-add-fd fd=7,set=3", "filename=/dev/fdset/3", "socket,id=fs0,fd=9",
	} {
		if !strings.Contains(line, part) {
			t.Errorf("%q is not in %s", part, line)
		}
	}
	for i, want := range []string{"kernel", "init rd", "store", "disk", "below"} {
		content, err := io.ReadAll(in.files[i+1])
		if err != nil || string(content) != want {
			t.Errorf("descriptor %d is of %q, %v; want %q", i+4, content, err, want)
		}
	}
	if got, want := Redirections(in.listed), " 4<"+dir+"/kernel 5<'"+dir+"/init rd' 6<"+dir+"/store 7<>"+dir+"/disk 8<"+dir+"/below"; got != want {
		t.Errorf("redirections %q, want %q", got, want)
	}
	if info, err := os.Stat(c.Kernel); err != nil || info.Mode().Perm()&0o004 == 0 {
		t.Errorf("another user could not open the kernel: %v, %v", info.Mode(), err)
	}
	for _, path := range []string{c.Drives[0].Path, c.Drives[1].Path, c.Drives[1].Backing[0]} {
		info, err := os.Stat(path)
		if err != nil || info.Mode().Perm() != 0o600 || int(info.Sys().(*syscall.Stat_t).Uid) != os.Getuid() {
			t.Errorf("QEMU's user could open %s: %v, %v", path, info.Mode(), err)
		}
	}

	c.Initrd = filepath.Join(dir, "none")
	if _, _, err := c.inherit(passed); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a missing file: %v", err)
	}
}
