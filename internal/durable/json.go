package durable

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"

	"github.com/google/renameio/v2"
	"golang.org/x/sys/unix"
)

// WriteJSON replaces the file at path by the JSON of v, in one step that a
// crash cannot tear. On a full disk, the file's own space is used again.
func WriteJSON(path string, v any) error {
	data, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return err
	}
	data = append(data, '\n')
	err = renameio.WriteFile(path, data, 0o600)
	if (errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT)) && overwrite(path, data) == nil {
		return nil
	}
	if err != nil {
		return fmt.Errorf("writing %s: %w", path, err)
	}
	return nil
}

// overwrite puts data into the file at path without needing more room than the
// file has, or fails and leaves it as it is.
func overwrite(path string, data []byte) error {
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return err
	}
	const blockSize = 512 // of st_blocks, on every file system (stat(2))
	if int64(len(data)) > st.Blocks*blockSize {
		return unix.ENOSPC
	}
	// Blanks over what is left of the longer old text: one write, which no
	// signal can interrupt half-way, and then the right length.
	padded := append(data, bytes.Repeat([]byte(" "), max(0, int(st.Size)-len(data)))...)
	if _, err := f.WriteAt(padded, 0); err != nil {
		return err
	}
	return errors.Join(f.Truncate(int64(len(data))), f.Sync())
}

// ReadJSON is strict, so that a file of a newer version is not half
// understood.
func ReadJSON(path string, v any) error {
	data, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	d := json.NewDecoder(bytes.NewReader(data))
	d.DisallowUnknownFields()
	if err := d.Decode(v); err != nil {
		return fmt.Errorf("%s is damaged or from a newer version of sandbox: %w", path, err)
	}
	return nil
}
