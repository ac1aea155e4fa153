package boot

import (
	"bytes"
	"encoding/base64"
	"slices"
	"strings"
	"testing"

	"golang.org/x/crypto/ssh"
)

const testKey = "AAAAC3NzaC1lZDI1NTE5AAAAIBxBPfUGrQFJeGMXJbMFNDIxcK9ihvZ1oX8GYyVHg6Qs"

func testPublicKey(t *testing.T) ssh.PublicKey {
	t.Helper()
	wire, err := base64.StdEncoding.DecodeString(testKey)
	if err != nil {
		t.Fatal(err)
	}
	key, err := ssh.ParsePublicKey(wire)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func TestTheGuestReadsWhatTheHostSays(t *testing.T) {
	key := testPublicKey(t)
	for _, p := range []Params{
		{Key: key},
		{Key: key, DiskSerial: "disk"},
		{Key: key, VsockPort: 1024},
		{Key: key, VsockPort: 1<<32 - 1, DiskSerial: "disk"},
	} {
		for _, word := range p.Words() {
			if !strings.HasPrefix(word, Prefix) {
				t.Errorf("the word %q could be an image's", word)
			}
		}
		line := strings.Join(slices.Concat([]string{"quiet", "sandboxed"}, p.Words(), []string{"panic=-1\n"}), " ")
		got, err := ParseParams(line)
		if err != nil || !bytes.Equal(got.Key.Marshal(), key.Marshal()) || got.VsockPort != p.VsockPort || got.DiskSerial != p.DiskSerial {
			t.Errorf("%q: %+v, %v; want %+v", line, got, err, p)
		}
	}
}

func TestWordsThatNoHostSays(t *testing.T) {
	key := base64.RawStdEncoding.EncodeToString(testPublicKey(t).Marshal())
	tests := []struct {
		cmdline string
		port    uint32
		err     string
	}{
		{"quiet sandbox.key=" + key + " sandbox.transport=serial panic=-1\n", 0, ""},
		{"sandbox.transport=vsock:1024 sandbox.key=" + key, 1024, ""},
		{"sandbox.transport=serial", 0, "sandbox.key is missing"},
		{"sandbox.key=%%% sandbox.transport=serial", 0, "not base64"},
		{"sandbox.key=AAAA sandbox.transport=serial", 0, "no SSH public key"},
		{"sandbox.key=" + key, 0, "sandbox.transport is \"\""},
		{"sandbox.transport=pigeon sandbox.key=" + key, 0, "pigeon"},
		{"sandbox.transport=vsock:0 sandbox.key=" + key, 0, "no valid vsock port"},
		{"sandbox.transport=vsock sandbox.key=" + key, 0, "no valid vsock port"},
	}
	for _, test := range tests {
		params, err := ParseParams(test.cmdline)
		if !says(err, test.err) || err == nil && params.VsockPort != test.port {
			t.Errorf("%q: %+v, %v; want an error with %q", test.cmdline, params, err, test.err)
		}
	}
}

// says reports whether err has the given text, or is nil if that is empty.
func says(err error, text string) bool {
	if text == "" || err == nil {
		return text == "" && err == nil
	}
	return strings.Contains(err.Error(), text)
}
