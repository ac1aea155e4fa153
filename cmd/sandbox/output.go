package main

import (
	"bytes"
	"encoding/json"
	"io"
	"os"

	"github.com/sourcery-zone/sandbox/internal/terminal"
)

// What this program says may quote a guest, or a stranger's project. So it
// reaches standard output and standard error through these two, which let nothing
// through that a terminal would obey. What a program in the guest writes, and an
// archive or a protocol that goes to another program, is passed on as it is.

// results is where the answers to commands go.
func results() *terminal.Writer { return terminal.NewWriter(os.Stdout) }

// notes is where everything goes that is not what was asked for.
func notes() *terminal.Writer { return terminal.NewWriter(os.Stderr) }

// printJSON writes v for people and programs alike.
func printJSON(w io.Writer, v any) error { return encodeJSON(w, v, "  ") }

// printJSONLine writes v in one line.
func printJSONLine(w io.Writer, v any) error { return encodeJSON(w, v, "") }

func encodeJSON(w io.Writer, v any, indent string) error {
	var text bytes.Buffer
	e := json.NewEncoder(&text)
	e.SetIndent("", indent)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		return err
	}
	_, err := w.Write(terminal.JSON(text.Bytes()))
	return err
}
