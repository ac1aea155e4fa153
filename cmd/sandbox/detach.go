package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"

	"github.com/urfave/cli/v2"
	"golang.org/x/sys/unix"

	"github.com/sourcery-zone/sandbox/machine"
)

// defaultDetachKeys are Docker's.
const defaultDetachKeys = "ctrl-p,ctrl-q"

func detachKeysFlag() cli.Flag {
	return &cli.StringFlag{
		Name: "detach-keys", Value: defaultDetachKeys, EnvVars: []string{"SANDBOX_DETACH_KEYS"},
		Usage: "`KEYS` that leave the terminal and the sandbox running: letters or ctrl-LETTER, with commas between; \"\" for none",
	}
}

// parseDetachKeys understands what Docker does: single characters, and ctrl-
// with one of those that the control key makes a character of.
func parseDetachKeys(s string) ([]byte, error) {
	if s == "" {
		return nil, nil
	}
	var keys []byte
	for key := range strings.SplitSeq(s, ",") {
		letter, control := strings.CutPrefix(key, "ctrl-")
		switch {
		case len(letter) != 1 || letter[0] <= ' ' || letter[0] > '~':
		case !control:
			keys = append(keys, letter[0])
			continue
		case strings.Contains("@abcdefghijklmnopqrstuvwxyz[\\]^_", letter):
			const ctrl = 0x1f // the bits that the control key leaves of a character
			keys = append(keys, letter[0]&ctrl)
			continue
		}
		return nil, fmt.Errorf("--detach-keys is %q, but must be single characters or ctrl- with one of a-z, @, [, \\, ], ^, _, with commas between, such as %s", s, defaultDetachKeys)
	}
	return keys, nil
}

// Why a person left a command that goes on.
var (
	errDetached = &exitCode{code: 0} // by the detach keys
	errHangup   = errors.New("the terminal was lost")
)

// keyboard is the input of a command on a terminal. It never ends: an end
// would reach the guest as the end-of-file key, but what has come is the
// person's leave.
type keyboard struct {
	in   io.Reader
	keys []byte     // that detach
	left chan error // gets errDetached or errHangup, once
	once sync.Once

	matched int    // how many of the keys were typed last, and are held back
	passed  []byte // what is to be read next
	why     error  // what leave gets once that has been read
}

func newKeyboard(in io.Reader, detachKeys []byte) *keyboard {
	return &keyboard{in: in, keys: detachKeys, left: make(chan error, 1)}
}

func (k *keyboard) leave(why error) { k.once.Do(func() { k.left <- why }) }

// Read implements io.Reader.
func (k *keyboard) Read(p []byte) (int, error) {
	for len(k.passed) == 0 && k.why == nil {
		n, err := k.in.Read(p)
		if err != nil {
			k.why = errHangup // in raw mode there is no other end
		}
		k.pass(p[:n])
	}
	if len(k.passed) == 0 {
		k.leave(k.why)
		select {}
	}
	n := copy(p, k.passed)
	k.passed = k.passed[n:]
	return n, nil
}

// pass holds back what may be the beginning of the detach keys, and ends at
// the last of them.
func (k *keyboard) pass(typed []byte) {
	k.passed = k.passed[:0]
	if len(k.keys) == 0 {
		k.passed = append(k.passed, typed...)
		return
	}
	for _, b := range typed {
		for k.matched > 0 && b != k.keys[k.matched] {
			// Its end may be another beginning, as of a key typed twice.
			shorter := k.matched - 1
			for !bytes.HasSuffix(k.keys[:k.matched], k.keys[:shorter]) {
				shorter--
			}
			k.passed = append(k.passed, k.keys[:k.matched-shorter]...)
			k.matched = shorter
		}
		if b != k.keys[k.matched] {
			k.passed = append(k.passed, b)
			continue
		}
		if k.matched++; k.matched == len(k.keys) {
			k.why = errDetached
			return
		}
	}
}

// leave ends our side of a command that a person left.
func (k *command) leave(s *machine.Sandbox, why error) error {
	if why != error(errDetached) {
		return &exitCode{128 + int(unix.SIGHUP), nil}
	}
	fmt.Fprintf(os.Stderr, "\nsandbox: detached from %s, which keeps running: sandbox attach %[1]s opens a shell in it\n", s.Name)
	return errDetached
}
