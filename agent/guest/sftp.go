//go:build linux

package guest

import (
	"errors"
	"fmt"
	"io"

	"github.com/pkg/sftp"
)

// ServeSFTP speaks the SFTP protocol on a pair of streams until the client has
// done, with the rights of the process that it runs in and paths relative to
// dir. The service starts itself once more for this as the session's user.
func ServeSFTP(in io.Reader, out io.WriteCloser, dir string) error {
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
