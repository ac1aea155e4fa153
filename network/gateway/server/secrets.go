package server

import (
	"errors"
	"os"

	"github.com/sourcery-zone/sandbox/network/gateway/internal/wire"
	"github.com/sourcery-zone/sandbox/network/secret"
)

// secrets are put into the guest's requests. They are told one by one before the start.
type secrets struct {
	entries []secret.Entry
	values  []secret.Value // of the entries, before there is a table
	table   *secret.Table
}

// add takes a secret, and takes over the file with its value, which is nil if it has none.
func (s *secrets) add(told wire.Secret, f *os.File) error {
	v, err := readValue(f)
	if err != nil {
		return err
	}
	spec, err := secret.Parse(told.Spec)
	if err != nil {
		return err
	}
	s.entries = append(s.entries, secret.Entry{Spec: spec, Placeholder: told.Placeholder})
	s.values = append(s.values, v)
	return nil
}

// start returns the table of the secrets; nil, if there are none.
func (s *secrets) start() (_ *secret.Table, err error) {
	if len(s.entries) == 0 {
		return nil, nil
	}
	if s.table, err = secret.NewTable(s.entries...); err != nil {
		return nil, err
	}
	for i, e := range s.entries {
		if err := s.table.Set(e.Spec.Name, s.values[i]); err != nil {
			return nil, err
		}
	}
	s.values = nil
	return s.table, nil
}

// set gives a secret another value, or none, and takes over the file.
func (s *secrets) set(name string, f *os.File) error {
	v, err := readValue(f)
	if err != nil {
		return err
	}
	if s.table == nil {
		return errors.New("the guest has no secrets")
	}
	return s.table.Set(name, v)
}

// readValue reads a secret from a file, and closes it. Without a file there is none.
func readValue(f *os.File) (secret.Value, error) {
	if f == nil {
		return secret.Value{}, nil
	}
	defer f.Close()
	return secret.ReadFile(f)
}
