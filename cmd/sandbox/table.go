package main

import (
	"fmt"
	"io"
	"os"
	"strings"
	"text/tabwriter"
	"time"
	"unicode/utf8"

	units "github.com/docker/go-units"
	"golang.org/x/term"
)

// table is text in columns, the first row being their names.
type table struct {
	rows [][]string
	// shrinks are the columns that may lose what makes them too wide.
	shrinks []int
}

const (
	columnGap   = 3
	columnLeast = 16 // that is left of one that shrinks
)

// ago is how a table says when something was.
func ago(t time.Time) string { return strings.ToLower(units.HumanDuration(time.Since(t))) + " ago" }

// write writes the table so that it fits a width if that is not 0.
func (t table) write(w io.Writer, width int) error {
	most := t.widths(width)
	out := tabwriter.NewWriter(w, 0, 0, columnGap, ' ', 0)
	for _, row := range t.rows {
		cells := make([]string, len(row))
		for i, cell := range row {
			cells[i] = shorten(cell, most[i])
		}
		fmt.Fprintln(out, strings.Join(cells, "\t"))
	}
	return out.Flush()
}

// widths are those of the columns. Where all are too wide, the widest of those
// that may shrink do, so that the narrow ones stay whole.
func (t table) widths(width int) []int {
	widths := make([]int, len(t.rows[0]))
	total := columnGap * (len(widths) - 1)
	for i := range widths {
		for _, row := range t.rows {
			widths[i] = max(widths[i], utf8.RuneCountInString(row[i]))
		}
		total += widths[i]
	}
	for width > 0 && total > width {
		widest := -1
		for _, i := range t.shrinks {
			if widths[i] > columnLeast && (widest < 0 || widths[i] > widths[widest]) {
				widest = i
			}
		}
		if widest < 0 {
			break
		}
		widths[widest]--
		total--
	}
	return widths
}

func shorten(s string, most int) string {
	if utf8.RuneCountInString(s) <= most {
		return s
	}
	return string([]rune(s)[:most-1]) + "…"
}

// terminalWidth is that of the terminal to which f goes, and 0 for other files.
func terminalWidth(f *os.File) int {
	width, _, err := term.GetSize(int(f.Fd()))
	if err != nil {
		return 0
	}
	return width
}
