package process

import (
	"slices"
	"strings"
	"testing"
)

func TestTailKeepsLastLines(t *testing.T) {
	for _, tt := range []struct {
		name   string
		limit  int
		writes []string
		want   []string
	}{
		{"nothing", 3, nil, nil},
		{"line in pieces", 3, []string{"he", "llo", "\n"}, []string{"hello"}},
		{"unfinished line", 3, []string{"a\nb"}, []string{"a", "b"}},
		{"more than the limit", 2, []string{"a\nb\nc\n"}, []string{"b", "c"}},
		{"limit counts the unfinished line", 2, []string{"a\nb\nc"}, []string{"b", "c"}},
		{"empty lines and line ends", 3, []string{"a\r\n\n  \nb\n"}, []string{"a", "b"}},
		{"endless line", 1, []string{strings.Repeat("x", maxTailLine), "y\n"}, []string{strings.Repeat("x", maxTailLine)}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			tail := newTail(tt.limit)
			for _, w := range tt.writes {
				if n, err := tail.Write([]byte(w)); n != len(w) || err != nil {
					t.Fatalf("Write = %d, %v", n, err)
				}
			}
			if got := tail.lines(); !slices.Equal(got, tt.want) {
				t.Errorf("lines = %q, want %q", got, tt.want)
			}
		})
	}
}
