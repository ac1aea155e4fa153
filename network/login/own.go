package login

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/google/renameio/v2"

	"github.com/sourcery-zone/sandbox/internal/remedy"
	"github.com/sourcery-zone/sandbox/internal/trust"
)

// OwnFile is where the provider's program has the user's own login.
func (p Provider) OwnFile(getenv func(string) string) (string, error) {
	if p.OwnVariable != "" && getenv(p.OwnVariable) != "" {
		return filepath.Join(getenv(p.OwnVariable), filepath.Base(p.Own)), nil
	}
	home := getenv("HOME")
	if !filepath.IsAbs(home) {
		return "", errors.New("HOME does not say where your home is: set it")
	}
	return filepath.Join(home, p.Own), nil
}

// Import moves the login that the provider's program has in its file. It leaves no copy there: two that refresh one login
// end it. What else the file has stays.
func (s Store) Import(ctx context.Context, p Provider, file string) error {
	text, err := readOwn(file)
	if errors.Is(err, os.ErrNotExist) {
		return remedy.Add(fmt.Errorf("%s has no login in %s that could be moved", p.Program, file), remedy.LogIn, p.Name)
	}
	if err != nil {
		return fmt.Errorf("reading the login of %s: %w", p.Program, err)
	}
	l, err := p.readOwn(text)
	if err != nil {
		return fmt.Errorf("the login of %s in %s cannot be moved: %w", p.Program, file, err)
	}
	l.Since = time.Now()
	if err := s.Put(ctx, p.Name, l); err != nil {
		return err
	}
	if err := takeOut(file, text, p.ownMembers); err != nil {
		return fmt.Errorf("%s still has the login that was moved; take it out, as two that use it end it: %w", file, err)
	}
	return nil
}

func readOwn(file string) ([]byte, error) {
	f, err := trust.OpenPrivate(file)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, maxFile))
}

// takeOut takes members out of an object of JSON, or all if none are named, and removes the file if nothing is left.
func takeOut(file string, text []byte, members []string) error {
	var object map[string]json.RawMessage
	if err := json.Unmarshal(text, &object); err != nil {
		return err
	}
	for _, name := range members {
		delete(object, name)
	}
	left := false
	for _, value := range object {
		left = left || len(members) > 0 && !bytes.Equal(value, []byte("null"))
	}
	if !left {
		return os.Remove(file)
	}
	text, err := json.MarshalIndent(object, "", "  ")
	if err != nil {
		return err
	}
	return renameio.WriteFile(file, append(text, '\n'), 0o600)
}
