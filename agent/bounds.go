package agent

import (
	"context"
	"strings"
	"unicode"
	"unicode/utf8"
)

// A guest may be hostile. What it says to the host has a size, and what the host
// waits for has an end, also where the guest leaves the host's own words unread.

// maxText bounds a text of the guest's that people are to read, in bytes: what
// is longer is no explanation, and would fill logs, state files and screens.
const maxText = 4 << 10

// clip shortens a text of the guest's to maxText.
func clip(text string) string {
	if len(text) <= maxText {
		return text
	}
	end := maxText
	for end > 0 && !utf8.RuneStart(text[end]) {
		end--
	}
	return strings.Clone(text[:end]) + "…"
}

// printable is the first characters of a text, at most so many, that can be shown in a line.
func printable(text string, most int) string {
	kept := 0
	return strings.Map(func(r rune) rune {
		if kept == most || !unicode.IsPrint(r) || r == unicode.ReplacementChar {
			return -1
		}
		kept++
		return r
	}, text)
}

// within returns when do has returned or ctx has ended. In the latter case do
// goes on, until the connection that it waits for ends.
func within(ctx context.Context, do func() error) error {
	done := make(chan error, 1)
	go func() { done <- do() }()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
