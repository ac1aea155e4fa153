//go:build linux

package server

import (
	"errors"
	"fmt"
	"io"

	"github.com/pkg/sftp"
)

// sftpMode is the argument by which the program is started for SFTP.
const sftpMode = "sftp"

// serveSFTP speaks the SFTP protocol on a pair of streams until the client has
// done, with paths relative to dir.
func serveSFTP(in io.Reader, out io.WriteCloser, dir string) error {
	server, err := sftp.NewServer(duplex{in, out}, sftp.WithServerWorkingDirectory(dir))
	if err != nil {
		return fmt.Errorf("cannot start the SFTP server: %w", err)
	}
	if err := server.Serve(); err != nil && !errors.Is(err, io.EOF) {
		return fmt.Errorf("the SFTP session broke: %w", err)
	}
	return nil
}

type duplex struct {
	io.Reader
	io.WriteCloser
}
