package aws

import (
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestErrorsOfAProfileHaveNothingThatAProgramPrints has it print a key beside what keeps it from being read.
func TestErrorsOfAProfileHaveNothingThatAProgramPrints(t *testing.T) {
	dir := t.TempDir()
	settings := filepath.Join(dir, "config")
	t.Setenv("AWS_CONFIG_FILE", settings)
	t.Setenv("AWS_SHARED_CREDENTIALS_FILE", os.DevNull)
	for name, text := range map[string]string{
		"warns":  "#!/bin/sh\necho 'it expires soon'; echo '{\"Version\": 1, \"AccessKeyId\": \"AKIAREAL\", \"SecretAccessKey\": \"real-secret\"}'",
		"fails":  "#!/bin/sh\necho real-secret; exit 3",
		"config": "[profile warns]\ncredential_process = " + dir + "/warns\n[profile fails]\ncredential_process = " + dir + "/fails\n[profile role]\nsource_profile = warns\nrole_arn = arn:aws:iam::000000000000:role/a\nregion = eu-central-1\n",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	dial := func(context.Context, string, string) (net.Conn, error) { return nil, errors.New("AWS is not asked") }
	for name, want := range map[string]string{"warns": "printed something else than a key", "role": "printed something else than a key", "fails": "exit status 3"} {
		_, err := Profile(t.Context(), dial, name)
		if err == nil || strings.Contains(err.Error(), "real") || strings.Contains(err.Error(), "AKIA") || !strings.Contains(err.Error(), "profile "+name) || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
