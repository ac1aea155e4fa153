package gpgagent

import (
	"bufio"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"strings"
)

// maxLine is how many bytes a line has at most without its end, as of Assuan.
const maxLine = 1000

// newReader returns a reader for readLine.
func newReader(r io.Reader) *bufio.Reader { return bufio.NewReaderSize(r, maxLine+2) }

// readLine reads a line without its end.
func readLine(r *bufio.Reader) (string, error) {
	line, err := r.ReadSlice('\n')
	if errors.Is(err, bufio.ErrBufferFull) || err == nil && len(line) > maxLine+1 {
		return "", fmt.Errorf("a line has more than %d bytes", maxLine)
	}
	if errors.Is(err, io.EOF) && len(line) > 0 {
		return "", io.ErrUnexpectedEOF
	}
	if err != nil {
		return "", err
	}
	return strings.TrimSuffix(string(line[:len(line)-1]), "\r"), nil
}

// unescape takes the escapes of percent signs out.
func unescape(s string) (string, error) {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] != '%' {
			b.WriteByte(s[i])
			continue
		}
		if i+2 >= len(s) {
			return "", errors.New("an escape is cut short")
		}
		c, err := hex.DecodeString(s[i+1 : i+3])
		if err != nil {
			return "", fmt.Errorf("%%%q is not an escape", s[i+1:i+3])
		}
		b.Write(c)
		i += 2
	}
	return b.String(), nil
}

// dataLines are lines that bear the data.
func dataLines(data []byte) string {
	const most = (maxLine - len("D ")) / len("%00")
	var b strings.Builder
	for len(data) > 0 {
		n := min(len(data), most)
		b.WriteString("D ")
		for _, c := range data[:n] {
			switch c {
			case '%', '\r', '\n':
				fmt.Fprintf(&b, "%%%02X", c)
			default:
				b.WriteByte(c)
			}
		}
		b.WriteByte('\n')
		data = data[n:]
	}
	return b.String()
}

// plusEscape makes a single word of a text.
func plusEscape(s string) string {
	var b strings.Builder
	for _, c := range []byte(s) {
		switch {
		case c == ' ':
			b.WriteByte('+')
		case c <= ' ' || c >= 0x7f || c == '%' || c == '+':
			fmt.Fprintf(&b, "%%%02X", c)
		default:
			b.WriteByte(c)
		}
	}
	return b.String()
}
