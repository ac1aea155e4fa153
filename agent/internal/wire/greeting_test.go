package wire

import (
	"bufio"
	"io"
	"slices"
	"strings"
	"testing"
)

func TestHelloIsFoundBehindGarbage(t *testing.T) {
	for _, before := range []string{
		"", "garbage\n", "\x00\xff\x00", "sandbox-agen", "sandbox-sandbox-agent", "ssandbox-agent-",
		strings.Repeat("sandbox-agen", 10_000), Hello(""), Hello("") + Hello("OTHER"), "sandbox-agent x\n",
		"sandbox-agent " + strings.Repeat("9", 1000),
	} {
		r := bufio.NewReader(strings.NewReader(before + Hello("WORD") + "rest"))
		if err := AwaitHello(r, "WORD"); err != nil {
			t.Errorf("after %.20q: %v", before, err)
			continue
		}
		if rest, _ := io.ReadAll(r); string(rest) != "rest" {
			t.Errorf("after %.20q: %q is left, want %q", before, rest, "rest")
		}
	}
}

func TestHelloThatNeverComes(t *testing.T) {
	for stream, want := range map[string]string{
		"":                             io.ErrUnexpectedEOF.Error(),
		"sandbox-agent ":               io.ErrUnexpectedEOF.Error(),
		Hello("") + Hello("OTHER"):     io.ErrUnexpectedEOF.Error(),
		"garbage\nsandbox-agent 2\n":   "build the image again",
		"sandbox-agent 2 WORD OTHER\n": "build the image again",
	} {
		err := AwaitHello(bufio.NewReader(strings.NewReader(stream)), "WORD")
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v; want an error with %q", stream, err, want)
		}
	}
}

func TestCallIsFoundInPiecesOfAStream(t *testing.T) {
	call, want := NewCall()
	older, _ := NewCall()
	stream := "\x00data\nsandbox-host 1 " + strings.Repeat("x", 100) + older[:20] + older + call + "rest"
	for size := 1; size <= len(stream); size++ {
		var (
			finder CallFinder
			words  []string
			last   string
		)
		for piece := range slices.Chunk([]byte(stream), size) {
			if word, rest, found := finder.Find(piece); found {
				words = append(words, word)
				last = string(rest)
			} else {
				last += string(piece)
			}
		}
		if len(words) == 0 || words[len(words)-1] != want || last != "rest" {
			t.Fatalf("in pieces of %d bytes: the words %q and the rest %q; want %q at last", size, words, last, want)
		}
	}
}
