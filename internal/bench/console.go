package main

import (
	"bytes"
	"io"
	"strings"
	"sync"
)

// console keeps what a guest writes to its console.
type console struct {
	mu    sync.Mutex
	text  []byte
	words map[string]chan struct{} // closed when the word has come
}

func newConsole() *console { return &console{words: map[string]chan struct{}{}} }

// read reads the console until its end.
func (c *console) read(r io.Reader) {
	_, _ = io.Copy(c, r) // it ends with the guest
}

// Write implements io.Writer.
func (c *console) Write(p []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.text = append(c.text, p...)
	for word, came := range c.words {
		if bytes.Contains(c.text, []byte(word)) {
			close(came)
			delete(c.words, word)
		}
	}
	return len(p), nil
}

// await returns a channel that is closed when word has been written.
func (c *console) await(word string) <-chan struct{} {
	c.mu.Lock()
	defer c.mu.Unlock()
	came := make(chan struct{})
	if bytes.Contains(c.text, []byte(word)) {
		close(came)
	} else {
		c.words[word] = came
	}
	return came
}

// tail is the last lines.
func (c *console) tail() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	lines := strings.Split(strings.TrimSpace(string(c.text)), "\n")
	return strings.Join(lines[max(0, len(lines)-12):], "\n")
}
