package main

import (
	"bytes"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/sourcery-zone/sandbox/image"
	"github.com/sourcery-zone/sandbox/machine"
	"github.com/sourcery-zone/sandbox/virtiofs"
)

func TestTheListOfSandboxesFitsTheTerminal(t *testing.T) {
	reason := "it did not start: " + strings.Repeat("the guest said something ö ", 12)
	infos := []machine.Info{
		{Name: "a-sandbox-with-a-name", State: machine.State{Status: machine.StatusCrashed, Reason: reason}, Config: machine.Config{
			Hardware: machine.Hardware{Image: image.ParseRef("debian@0123"), MemoryMiB: 1024, CPUs: 2},
			Access:   machine.Access{Shares: []virtiofs.Share{{Source: "/home/me/a/project/in/a/deep/directory"}, {Source: "/srv/another"}}},
		}},
		{Name: "b", State: machine.State{Status: machine.StatusStopped}, Config: machine.Config{Hardware: machine.Hardware{Image: image.ParseRef("debian@0123"), MemoryMiB: 256, CPUs: 1}}},
	}
	for width, whole := range map[int]bool{0: true, 120: false, 100: false, 2000: true, 10: false} {
		var out bytes.Buffer
		if err := listing(infos, time.Now()).write(&out, width); err != nil {
			t.Fatal(err)
		}
		text := out.String()
		if strings.Contains(text, strings.TrimSpace(reason)) != whole || !strings.Contains(text, "a-sandbox-with-a-name") || !strings.Contains(text, "stopped") {
			t.Errorf("%d columns:\n%s", width, text)
		}
		for line := range strings.Lines(text) {
			if n := utf8.RuneCountInString(strings.TrimRight(line, "\n")); width >= 100 && n > width {
				t.Errorf("%d columns: one line has %d:\n%s", width, n, text)
			}
		}
	}
}
