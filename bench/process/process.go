// Package process runs the real binary for the benchmarks and the crash runs:
// start, SIGKILL, start again, and JSON requests to it.
package process

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/pocketbase/dbx"
	"github.com/pocketbase/pocketbase/core"

	"github.com/groundworkhq/groundwork/notifications/providertest"
)

// The superuser of [Production].
const (
	RootEmail    = "root@example.com"
	RootPassword = "a-long-password"
)

// Root is the environment of a server in production, with no provider.
func Root() []string {
	return []string{"APP_ENV=production", "GROUNDWORK_KEY=" + strings.Repeat("k", 32), "SUPERUSER_EMAIL=" + RootEmail, "SUPERUSER_PASSWORD=" + RootPassword}
}

// Production is [Root] with a mail server.
func Production(mails *providertest.SMTP) []string {
	return append(Root(),
		"SMTP_HOST="+mails.Host(), fmt.Sprintf("SMTP_PORT=%d", mails.Port()), "SMTP_TLS=none", "SMTP_FROM=Shop <hello@example.com>")
}

// Server is the real binary in its own process, in a folder of its own.
type Server struct {
	Binary, Dir string   // the file, and the folder that holds pb_data
	Env         []string // besides PATH and HOME
	Args        []string // besides serve, its address and folder
	addr        string
	cmd         *exec.Cmd
	token       string
}

// Start starts the process and waits until it answers. The port stays the same
// over restarts.
func (s *Server) Start() error {
	if s.addr == "" {
		var err error
		if s.addr, err = providertest.FreeAddress(); err != nil {
			return err
		}
	}
	out, err := os.OpenFile(filepath.Join(s.Dir, "log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer out.Close() // the process has its own copy
	binary, err := filepath.Abs(s.Binary)
	if err != nil {
		return err
	}
	s.cmd = exec.Command(binary, append([]string{"serve", "--http", s.addr, "--dir", filepath.Join(s.Dir, "pb_data")}, s.Args...)...)
	s.cmd.Dir, s.cmd.Stdout, s.cmd.Stderr = s.Dir, out, out
	s.cmd.Env = append([]string{"PATH=" + os.Getenv("PATH"), "HOME=" + s.Dir}, s.Env...)
	if err := s.cmd.Start(); err != nil {
		return fmt.Errorf("%w (make build makes the binary)", err)
	}
	for deadline := time.Now().Add(3 * time.Minute); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) { // between two tries to connect
		res, err := http.Get("http://" + s.addr + "/api/health")
		if err == nil {
			_ = res.Body.Close()
			if res.StatusCode == http.StatusOK {
				return nil
			}
		}
	}
	s.Kill()
	tail, _ := os.ReadFile(filepath.Join(s.Dir, "log"))
	return fmt.Errorf("the server did not start: %s", tail[max(0, len(tail)-2000):])
}

// URL is the base address, once it was started.
func (s *Server) URL() string { return "http://" + s.addr }

// PID is the number of the process, once it was started.
func (s *Server) PID() int { return s.cmd.Process.Pid }

// Kill is SIGKILL: the process gets no chance to tidy up.
func (s *Server) Kill() {
	if s.cmd == nil || s.cmd.Process == nil || s.cmd.ProcessState != nil {
		return
	}
	_ = s.cmd.Process.Kill()
	_ = s.cmd.Wait()
}

// Memory is how much of the machine's memory the process uses now, in bytes.
func (s *Server) Memory() (int64, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", s.cmd.Process.Pid))
	if err != nil {
		return 0, err
	}
	for _, line := range strings.Split(string(text), "\n") {
		if value, ok := strings.CutPrefix(line, "VmRSS:"); ok {
			kilobytes, err := strconv.ParseInt(strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(value), "kB")), 10, 64)
			return kilobytes << 10, err
		}
	}
	return 0, errors.New("the system does not say how much memory the process uses")
}

// WithDB opens the database beside the process.
func (s *Server) WithDB(do func(db *dbx.DB) error) error {
	db, err := core.DefaultDBConnect(filepath.Join(s.Dir, "pb_data", "data.db"))
	if err != nil {
		return err
	}
	return errors.Join(do(db), db.Close())
}

// Call makes a request with JSON in and out; anything but 200 is an error.
func (s *Server) Call(method, path string, body any, into any) error {
	code, answer, err := s.do(method, path, body)
	if err != nil {
		return err
	}
	if code != http.StatusOK {
		return fmt.Errorf("%s %s: %d %s", method, path, code, answer)
	}
	return json.Unmarshal(answer, into)
}

// Status makes a request and returns the status of the answer.
func (s *Server) Status(method, path string, body any) (int, error) {
	code, _, err := s.do(method, path, body)
	return code, err
}

func (s *Server) do(method, path string, body any) (int, []byte, error) {
	raw, err := json.Marshal(body)
	if err != nil {
		return 0, nil, err
	}
	req, err := http.NewRequest(method, "http://"+s.addr+path, bytes.NewReader(raw))
	if err != nil {
		return 0, nil, err
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Authorization", s.token)
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, nil, err
	}
	defer res.Body.Close()
	answer, err := io.ReadAll(res.Body)
	return res.StatusCode, answer, err
}

// SignIn makes the next calls those of the superuser.
func (s *Server) SignIn() error {
	var auth struct{ Token string }
	if err := s.Call(http.MethodPost, "/api/collections/_superusers/auth-with-password", map[string]any{"identity": RootEmail, "password": RootPassword}, &auth); err != nil {
		return err
	}
	s.token = auth.Token
	return nil
}

// SignOut makes the next calls those of a guest.
func (s *Server) SignOut() { s.token = "" }
