package main

import (
	"context"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/sourcery-zone/sandbox/image"
	"github.com/sourcery-zone/sandbox/network"
	"github.com/sourcery-zone/sandbox/qemu"
)

// refusalCommands gives scripts what a run needs to be refused for one reason
// only: "image" installs an image that is whole, but cannot be booted, "listen
// VARIABLE" occupies a port and puts its number into the variable, and "free
// VARIABLE" does so with one that nobody has.
func refusalCommands() map[string]func(*testscript.TestScript, bool, []string) {
	return map[string]func(*testscript.TestScript, bool, []string){
		"image": func(ts *testscript.TestScript, neg bool, args []string) {
			if neg || len(args) != 0 {
				ts.Fatalf("usage: image")
			}
			ts.Check(installEmptyImage(filepath.Join(ts.Getenv("XDG_DATA_HOME"), "sandbox", "images"), ts.MkAbs("image")))
		},
		"listen": func(ts *testscript.TestScript, neg bool, args []string) {
			if neg || len(args) != 1 {
				ts.Fatalf("usage: listen VARIABLE")
			}
			l, err := net.Listen("tcp4", "127.0.0.1:0")
			ts.Check(err)
			ts.Defer(func() { l.Close() })
			ts.Setenv(args[0], strconv.Itoa(l.Addr().(*net.TCPAddr).Port))
		},
		"free": func(ts *testscript.TestScript, neg bool, args []string) {
			if neg || len(args) != 1 {
				ts.Fatalf("usage: free VARIABLE")
			}
			port, err := network.FreePort(network.TCP, netip.IPv4Unspecified())
			ts.Check(err)
			ts.Setenv(args[0], strconv.Itoa(port))
		},
	}
}

// installEmptyImage makes the image in dir, and installs it in the store.
func installEmptyImage(store, dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	m := image.Manifest{
		Version: image.Version, Name: "empty", System: string(qemu.HostArch()) + "-linux",
		Store:   image.StoreFile{Format: "erofs", Mount: "/"},
		Cmdline: []string{"console=hvc0"}, Init: "/sbin/init",
		User:       image.User{Name: "agent", UID: 1000, GID: 1000, Home: "/home/agent", Shell: "/bin/sh"},
		Agent:      image.Agent{Port: 1024},
		Provenance: image.Provenance{Builder: "test", Built: time.Unix(1, 0).UTC()},
	}
	for name, file := range map[string]*image.File{"kernel": &m.Kernel, "initrd": &m.Initrd, "store": &m.Store.File} {
		err := os.WriteFile(filepath.Join(dir, name), []byte(name), 0o644)
		if err == nil {
			*file, err = image.Describe(context.Background(), dir, name)
		}
		if err != nil {
			return err
		}
	}
	data, err := m.Encode()
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(dir, image.ManifestFile), data, 0o644); err != nil {
		return err
	}
	images, err := image.OpenStore(store)
	if err != nil {
		return err
	}
	_, err = images.Install(context.Background(), dir)
	return err
}
