package main

import (
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
)

func TestEnvironmentOfACommand(t *testing.T) {
	file := filepath.Join(t.TempDir(), "env")
	lookup := func(name string) (string, bool) {
		v, ok := map[string]string{"KEY": "from host"}[name]
		return v, ok
	}
	for _, tt := range []struct {
		name, file string
		flags      []string
		want       []string
		err        string
	}{
		{name: "order", file: "# comment\n\nA=1\r\nKEY\nB=x=y # kept\n", flags: []string{"A=2", "EMPTY="}, want: []string{"A=1", "KEY=from host", "B=x=y # kept", "A=2", "EMPTY="}},
		{name: "position", file: "A=1\nnot a name=s3cret\n", err: "env:2:"},
		{name: "unset in file", file: "A=1\n\nNOPE\n", err: "env:3: NOPE has no value"},
		{name: "unset", flags: []string{"NOPE"}, err: "--env: NOPE has no value"},
		{name: "as the kernel takes them", file: "a/b=1\n", flags: []string{"my.name=2", "1A=3", "-x=4", "ü=5"}, want: []string{"a/b=1", "my.name=2", "1A=3", "-x=4", "ü=5"}},
		{name: "space", flags: []string{"A =s3cret"}, err: "--env:"},
		{name: "no name", flags: []string{"=s3cret"}, err: "--env:"},
		{name: "NUL", flags: []string{"A=s3cret\x00"}, err: "NUL"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if err := os.WriteFile(file, []byte(tt.file), 0o600); err != nil {
				t.Fatal(err)
			}
			got, err := parseEnv(tt.flags, []string{file}, lookup)
			if tt.err != "" {
				if err == nil || !strings.Contains(err.Error(), tt.err) {
					t.Fatalf("error %v, want one with %q", err, tt.err)
				}
				if strings.Contains(err.Error(), "s3cret") {
					t.Errorf("the error shows the value: %v", err)
				}
				return
			}
			if err != nil || !reflect.DeepEqual(got, tt.want) {
				t.Errorf("got %q, %v; want %q", got, err, tt.want)
			}
		})
	}
}

func TestMemorySizes(t *testing.T) {
	for s, want := range map[string]int{"": 0, "512": 512, "512M": 512, "4G": 4096, "1.5g": 1536, "2048mib": 2048} {
		if got, err := parseSize("--memory", s); err != nil || got != want {
			t.Errorf("%q is %d MiB, %v; want %d", s, got, err, want)
		}
	}
	for _, s := range []string{"lots", "-1G", "1X", "G"} {
		if got, err := parseSize("--memory", s); err == nil {
			t.Errorf("%q was taken as %d MiB", s, got)
		}
	}
}

func TestPublicKeysAreReadStrictlyWhenAskedFor(t *testing.T) {
	dir := t.TempDir()
	key := "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGeTuLYLWBEgJLaSzcBpoHDsrQLGCzAQgcqfHTIVnlzW me@here"
	good, bad := filepath.Join(dir, "good.pub"), filepath.Join(dir, "id_ed25519")
	for path, text := range map[string]string{good: "# mine\n" + key + "\n" + key + "\n", bad: "-----BEGIN OPENSSH PRIVATE KEY-----\n"} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	keys, err := readPublicKeys([]string{good})
	if err != nil || len(keys) != 1 || keys[0] != key {
		t.Errorf("keys %q, %v", keys, err)
	}
	if _, err := readPublicKeys([]string{bad}); err == nil || !strings.Contains(err.Error(), ".pub") {
		t.Errorf("a private key was accepted: %v", err)
	}
	if _, err := readPublicKeys([]string{filepath.Join(dir, "none.pub")}); err == nil {
		t.Error("a missing file was accepted")
	}
}
