package secret

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"strings"
	"unique"

	"golang.org/x/sys/unix"
)

// maxValue is more than any key or token has, in bytes.
const maxValue = 16 << 10

// maxRead is enough to tell what is longer, with a line's end of two bytes.
const maxRead = maxValue + 3

const shown = "[secret]"

// Value is a secret. Its zero value is none. Values are equal if the secrets are.
//
// The secret is behind a pointer: package fmt asks no Formatter about what is in unexported fields, and about no operand of
// a wrong verb, but prints them, and of a pointer within them the address only.
type Value struct{ text unique.Handle[string] }

// NewValue returns a value that can be in a header: printable ASCII, without spaces at its ends. A line's end after it,
// as programs print, is not part of it.
func NewValue(text string) (Value, error) {
	text = strings.TrimSuffix(strings.TrimSuffix(text, "\n"), "\r")
	switch {
	case text == "":
		return Value{}, errors.New("it is empty")
	case len(text) > maxValue:
		return Value{}, fmt.Errorf("it has more than %d bytes", maxValue)
	case strings.Trim(text, " ") != text:
		return Value{}, errors.New("there are spaces before or after it")
	}
	for i := range len(text) {
		if text[i] < ' ' || text[i] > '~' {
			return Value{}, errors.New("it has characters that cannot be in a header, such as a line's end")
		}
	}
	return Value{unique.Make(text)}, nil
}

// Read reads a value to the end of r, and no more than a value can have.
func Read(r io.Reader) (Value, error) {
	text, err := io.ReadAll(io.LimitReader(r, maxRead))
	if err != nil {
		return Value{}, err
	}
	return NewValue(string(text))
}

// Reveal returns the secret itself.
func (v Value) Reveal() string {
	if v.IsZero() {
		return ""
	}
	return v.text.Value()
}

// IsZero tells whether there is no secret.
func (v Value) IsZero() bool { return v == Value{} }

// Format writes that there is a secret, whatever the verb.
func (v Value) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, shown) }

// LogValue is as Format, for package slog.
func (v Value) LogValue() slog.Value { return slog.StringValue(shown) }

// MarshalText fails, and with it each encoding of a value.
func (v Value) MarshalText() ([]byte, error) {
	return nil, errors.New("a secret is not written down")
}

// File returns the value in a file in memory, which nobody can change. The caller closes it.
func (v Value) File() (*os.File, error) {
	fd, err := unix.MemfdCreate("secret", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	if err != nil {
		return nil, fmt.Errorf("keeping a secret in memory: %w", err)
	}
	f := os.NewFile(uintptr(fd), "secret")
	_, err = io.WriteString(f, v.Reveal())
	if err == nil {
		_, err = unix.FcntlInt(f.Fd(), unix.F_ADD_SEALS, unix.F_SEAL_WRITE|unix.F_SEAL_GROW|unix.F_SEAL_SHRINK|unix.F_SEAL_SEAL)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("keeping a secret in memory: %w", err), f.Close())
	}
	return f, nil
}

// ReadFile returns the value in a file of [Value.File], wherever it was read to before. The file stays the caller's.
func ReadFile(f *os.File) (Value, error) {
	return Read(io.NewSectionReader(f, 0, maxRead))
}
