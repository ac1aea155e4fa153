//go:build linux

package guest

import (
	"crypto/ed25519"
	"crypto/rand"
	"encoding/pem"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/sourcery-zone/sandbox/agent"
	"github.com/sourcery-zone/sandbox/agent/boot"
	"github.com/sourcery-zone/sandbox/agent/server"
	"golang.org/x/crypto/ssh"
)

func TestPrepareRootRunsAProgramOfTheNewRoot(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("changes its root directory: run it as root")
	}
	dir := t.TempDir()
	program := filepath.Join(dir, "prepare")
	write := func(text string) {
		if err := os.WriteFile(program, []byte("#!/bin/sh\n"+text), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	write("pwd > " + dir + "/ran\n")
	if err := prepareRoot(t.Context(), new(server.Starter), "/", program); err != nil {
		t.Fatal(err)
	}
	if ran, err := os.ReadFile(filepath.Join(dir, "ran")); err != nil || string(ran) != "/\n" {
		t.Errorf("it should have run in the root's top directory: %q, %v", ran, err)
	}
	write("exit 3\n")
	if err := prepareRoot(t.Context(), new(server.Starter), "/", program); err == nil || !strings.Contains(err.Error(), program) || !strings.Contains(err.Error(), "3") {
		t.Errorf("a failure should name the program and its status: %v", err)
	}
}

const testKey = "AAAAC3NzaC1lZDI1NTE5AAAAIBxBPfUGrQFJeGMXJbMFNDIxcK9ihvZ1oX8GYyVHg6Qs"

func TestOpenSSHGetsTheSandboxsKeys(t *testing.T) {
	_, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	block, err := ssh.MarshalPrivateKey(private, "")
	if err != nil {
		t.Fatal(err)
	}
	root := t.TempDir()
	user := boot.User{Name: "agent"}
	config := agent.BootConfig{HostKey: pem.EncodeToMemory(block), AuthorizedKeys: []string{"ssh-ed25519 " + testKey + " me@host"}}
	for range 2 { // with a disk, those of the last boot are there
		if err := writeSSHKeys(root, user, config); err != nil {
			t.Fatal(err)
		}
	}
	for _, file := range []struct {
		path, start string
		mode        os.FileMode
	}{
		{"/etc/ssh/ssh_host_ed25519_key", "-----BEGIN OPENSSH PRIVATE KEY-----", 0o600},
		{"/etc/ssh/ssh_host_ed25519_key.pub", "ssh-ed25519 ", 0o644},
		{"/etc/ssh/authorized_keys.d/agent", "ssh-ed25519 " + testKey, 0o444},
	} {
		path := filepath.Join(root, file.path)
		info, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if info.Mode() != file.mode || !strings.HasPrefix(string(text), file.start) {
			t.Errorf("%s has mode %v and is %q", file.path, info.Mode(), text)
		}
	}
}

func TestOpenSSHKeepsItsOwnKeysWhenTheHostSendsNone(t *testing.T) {
	root := t.TempDir()
	if err := writeSSHKeys(root, boot.User{Name: "agent"}, agent.BootConfig{}); err != nil {
		t.Fatal(err)
	}
	if entries, err := os.ReadDir(root); err != nil || len(entries) != 0 {
		t.Errorf("nothing should have been written: %v, %v", entries, err)
	}
}

func TestSystemdIsInstructedBeforeItStarts(t *testing.T) {
	root := t.TempDir()
	for range 2 { // it must not mind what is there
		if err := instructSystemd(root, 1234); err != nil {
			t.Fatal(err)
		}
	}
	for unit, want := range map[string]string{
		"init.scope":                    "OOMPolicy=continue",
		"user-runtime-dir@1234.service": "ExecStop=\n",
		"user@1234.service":             "XDG_RUNTIME_DIR=/run/user/1234",
	} {
		got, err := os.ReadFile(filepath.Join(root, "/run/systemd/system", unit+".d/sandbox.conf"))
		if err != nil || !strings.Contains(string(got), want) {
			t.Errorf("%s: %q, %v", unit, got, err)
		}
	}
}
