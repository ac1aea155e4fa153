package wire

import (
	"bufio"
	"bytes"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
)

// The greeting on the virtio-serial port. A port is nothing but a stream of
// bytes, which tells neither side reliably when the other has been replaced:
// the guest does not notice a host that leaves and comes back quickly, or one
// that has restored it from a snapshot. So the host calls, with a word made
// for the occasion, and the guest drops whatever it was doing there, answers
// with the same word, and starts afresh. What either side reads before that is
// left over from an earlier conversation.
//
//	guest: sandbox-agent 1        when it opens the port, for whoever listens
//	host:  sandbox-host 1 WORD
//	guest: sandbox-agent 1 WORD   and from here on it is a yamux server
const (
	helloPrefix = "sandbox-agent "
	callPrefix  = "\nsandbox-host 1 "

	// wordLength is that of crypto/rand.Text.
	wordLength = 26

	// helloLimit bounds the rest of a line that may be a greeting.
	helloLimit = 64
)

// Hello returns the line by which the guest greets the host, in answer to the
// word of a call, or unasked if that is empty.
func Hello(word string) string {
	if word != "" {
		word = " " + word
	}
	return fmt.Sprintf("%s%d%s\n", helloPrefix, ProtocolVersion, word)
}

// NewCall returns the line by which the host calls the guest, and its word.
// Its length and form never change, because both sides must find it in a
// stream of anything, whatever the version of the rest.
func NewCall() (line, word string) {
	word = rand.Text()
	return callPrefix + word + "\n", word
}

// CallFinder looks for a host's call in a stream that comes in pieces. The
// stream inside is encrypted, so a call in it is one, and not data.
type CallFinder struct{ window []byte }

// Find looks at the next piece. If a call ends in it, Find returns the call's
// word and what follows in the piece.
func (f *CallFinder) Find(piece []byte) (word string, rest []byte, found bool) {
	const length = len(callPrefix) + wordLength + len("\n")
	f.window = append(f.window, piece...)
	for {
		start := bytes.LastIndex(f.window, []byte(callPrefix))
		switch {
		case start < 0:
			f.keep(len(callPrefix) - 1)
			return "", nil, false
		case len(f.window)-start < length:
			f.keep(len(f.window) - start)
			return "", nil, false
		}
		call := f.window[start : start+length]
		if call[length-1] != '\n' {
			f.keep(len(f.window) - start - 1) // it only looked like one
			continue
		}
		word = string(call[len(callPrefix) : length-1])
		rest = bytes.Clone(f.window[start+length:])
		f.window = bytes.Clone(rest) // another call may begin in it
		return word, rest, true
	}
}

// keep drops all but the last bytes.
func (f *CallFinder) keep(count int) {
	if surplus := len(f.window) - count; surplus > 0 {
		f.window = append(f.window[:0], f.window[surplus:]...)
	}
}

// AwaitHello reads up to the end of the guest's answer to the call with the
// given word.
func AwaitHello(r *bufio.Reader, word string) error {
	for {
		if err := skipPast(r, helloPrefix); err != nil {
			return err
		}
		line, err := readLine(r)
		if err != nil {
			return err
		}
		number, answer, _ := strings.Cut(line, " ")
		version, err := strconv.Atoi(number)
		if err != nil {
			continue // part of something else
		}
		if version != ProtocolVersion {
			return fmt.Errorf("it speaks version %d of the protocol and this program speaks version %d: build the image again with this program's version", version, ProtocolVersion)
		}
		if answer == word {
			return nil
		}
	}
}

// skipPast reads up to the end of the given text.
func skipPast(r *bufio.Reader, text string) error {
	var tail []byte
	for !bytes.Equal(tail, []byte(text)) {
		b, err := r.ReadByte()
		if err != nil {
			return NoEOF(err)
		}
		if len(tail) == len(text) {
			tail = append(tail[:0], tail[1:]...)
		}
		tail = append(tail, b)
	}
	return nil
}

// readLine reads up to the end of a line, or as much as a greeting can have.
func readLine(r *bufio.Reader) (string, error) {
	var line strings.Builder
	for line.Len() < helloLimit {
		b, err := r.ReadByte()
		if err != nil {
			return "", NoEOF(err)
		}
		if b == '\n' {
			break
		}
		line.WriteByte(b)
	}
	return line.String(), nil
}

// NoEOF names the end of a stream where more was to come.
func NoEOF(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}
