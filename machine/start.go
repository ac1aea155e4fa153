package machine

import (
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"

	"github.com/sourcery-zone/sandbox/machine/api"
)

// SuperviseCommand is the argument with which Start runs our own executable
// again, before the sandbox's name, unless Host.Supervisor says otherwise. The
// executable must then call supervisor.Main. The name is for who looks at the list of
// processes.
const SuperviseCommand = "supervise"

// startSupervisor starts a process that outlives us, with copies of the files.
// hold is nil unless the request says so.
func (s *Sandbox) startSupervisor(r api.StartRequest, lock, reports, hold *os.File, secrets []*os.File) error {
	argv := s.host.Supervisor
	if len(argv) == 0 {
		self, err := os.Executable()
		if err != nil {
			return err
		}
		argv = []string{self, SuperviseCommand, s.Name}
	}
	request, err := r.Pipe()
	if err != nil {
		return fmt.Errorf("starting the supervisor: %w", err)
	}
	defer request.Close()
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Dir = "/"
	cmd.Env = supervisorEnv(os.Environ())
	cmd.ExtraFiles = append([]*os.File{lock, reports, request, hold}, secrets...) // of nil, the descriptor is closed
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("starting the supervisor: %w", err)
	}
	return cmd.Process.Release()
}

// supervisorEnv is what the supervisor needs of the environment. The rest
// stays out of it, because people keep API keys there.
func supervisorEnv(environ []string) []string {
	var env []string
	for _, kv := range environ {
		name, _, _ := strings.Cut(kv, "=")
		switch name {
		case "PATH", "HOME", "USER", "LANG", "TZ", "TMPDIR",
			"AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE", // whose keys are got again there
			"SSL_CERT_FILE", "SSL_CERT_DIR", // whom the providers of logins are believed by
			"XDG_DATA_HOME", "XDG_STATE_HOME", "XDG_CACHE_HOME", "XDG_RUNTIME_DIR":
			env = append(env, kv)
		}
	}
	return env
}
