package pgtest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/groundworkhq/groundwork/internal/freeport"
)

// patience is how long a server may take to start on a machine that is busy.
const patience = 2 * time.Minute

// Password is in every address, so that tests see where it is told.
const Password = "pg-secret-4711"

// Server is a Postgres on loopback.
type Server struct {
	bin, dir string
	address  string
	cred     *syscall.Credential

	mu     sync.Mutex
	cmd    *exec.Cmd
	exited chan struct{}
	output *bytes.Buffer
}

var (
	one      = sync.OnceValues(start)
	wasAsked atomic.Bool
)

// Main runs the tests of a package and ends its server. It is for TestMain:
//
//	func TestMain(m *testing.M) { os.Exit(pgtest.Main(m)) }
func Main(m *testing.M) int {
	code := m.Run()
	if wasAsked.Load() {
		if s, err := one(); err == nil {
			s.Stop()
		}
	}
	return code
}

// Database returns the address of an empty database on the server that all tests of
// this binary share.
func Database(t testing.TB) string {
	t.Helper()
	wasAsked.Store(true)
	s, err := one()
	check(t, err)
	return s.Database(t)
}

// New starts a server for one test: one that stops or restarts it.
func New(t testing.TB) *Server {
	t.Helper()
	s, err := start()
	check(t, err)
	t.Cleanup(s.Stop)
	return s
}

// Start starts a server for a program, such as a benchmark, that stops it itself.
func Start() (*Server, error) { return start() }

// ErrAbsent means that Postgres is not installed.
var ErrAbsent = errors.New("postgres is not installed: apt-get install postgresql")

func check(t testing.TB, err error) {
	t.Helper()
	if errors.Is(err, ErrAbsent) && os.Getenv("REQUIRE_PEERS") != "1" {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
}

var names atomic.Int64

// Database makes an empty database and returns its address.
func (s *Server) Database(t testing.TB) string {
	t.Helper()
	name, err := s.NewDatabase()
	if err != nil {
		t.Fatal(err)
	}
	return s.URL(name)
}

// NewDatabase makes an empty database and returns its name.
func (s *Server) NewDatabase() (string, error) {
	name := fmt.Sprintf("test_%d", names.Add(1))
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	conn, err := pgx.Connect(ctx, s.URL("postgres"))
	if err != nil {
		return "", err
	}
	defer func() { _ = conn.Close(ctx) }() // it was only used for this
	_, err = conn.Exec(ctx, "CREATE DATABASE "+name)
	return name, err
}

// URL is the address of a database of the server. Who connects waits as long as a busy
// machine needs, and not the 5 seconds of the product.
func (s *Server) URL(database string) string {
	return fmt.Sprintf("postgres://postgres:%s@%s/%s?sslmode=disable&connect_timeout=%.0f", Password, s.address, database, patience.Seconds())
}

func start() (*Server, error) {
	bin, err := find()
	if err != nil {
		return nil, err
	}
	s := &Server{bin: bin}
	if s.dir, err = os.MkdirTemp("", "gwpg"); err != nil {
		return nil, err
	}
	fail := func(err error) (*Server, error) {
		s.Stop()
		return nil, err
	}
	if os.Getuid() == 0 {
		// Postgres refuses to run as root.
		if s.cred, err = unprivileged(); err != nil {
			return fail(err)
		}
		if err := os.Chown(s.dir, int(s.cred.Uid), int(s.cred.Gid)); err != nil {
			return fail(err)
		}
	}
	cmd := s.command("initdb", "-D", s.data(), "-U", "postgres", "--auth=trust", "--no-sync", "-E", "UTF8", "--locale=C")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fail(fmt.Errorf("initdb: %w\n%s", err, out))
	}
	// Others connect while it is away between Crash and Run: its port is none that they
	// could get.
	if s.address, err = freeport.Address(); err != nil {
		return fail(err)
	}
	if err := s.Run(); err != nil {
		return fail(err)
	}
	return s, nil
}

func (s *Server) data() string { return filepath.Join(s.dir, "data") }

func (s *Server) command(name string, args ...string) *exec.Cmd {
	cmd := exec.Command(filepath.Join(s.bin, name), args...)
	cmd.Dir = s.dir
	cmd.Env = append(os.Environ(), "LC_ALL=C")
	cmd.SysProcAttr = sysProcAttr(s.cred)
	return cmd
}

// Run starts the server, which was stopped, and waits until it answers.
func (s *Server) Run() error {
	s.mu.Lock()
	host, port, err := net.SplitHostPort(s.address)
	if err != nil {
		s.mu.Unlock()
		return fmt.Errorf("start postgres: %w", err)
	}
	cmd := s.command("postgres", "-D", s.data(), "-k", s.dir, "-h", host, "-p", port,
		"-c", "fsync=off", "-c", "full_page_writes=off", "-c", "max_connections=400", "-c", "shared_buffers=64MB", "-c", "log_min_messages=fatal")
	output := &bytes.Buffer{}
	cmd.Stdout, cmd.Stderr = output, output
	started, exited := make(chan error), make(chan struct{})
	go func() {
		// What ends the server with this process hangs on the thread that started it.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		started <- err
		if err == nil {
			_ = cmd.Wait()
		}
		close(exited)
	}()
	err = <-started
	s.cmd, s.exited, s.output = cmd, exited, output
	s.mu.Unlock()
	if err != nil {
		return fmt.Errorf("start postgres: %w", err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	for {
		conn, err := pgx.Connect(ctx, s.URL("postgres"))
		if err == nil {
			return conn.Close(ctx)
		}
		select {
		case <-exited:
			return fmt.Errorf("postgres ended: %s", output)
		case <-ctx.Done():
			return fmt.Errorf("postgres does not answer: %w", err)
		case <-time.After(20 * time.Millisecond): // between two looks
		}
	}
}

// Crash ends the server at once, as pg_ctl stop -m immediate does.
func (s *Server) Crash() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.cmd == nil || s.cmd.Process == nil {
		return
	}
	_ = s.cmd.Process.Signal(syscall.SIGQUIT)
	<-s.exited
}

// Stop ends the server and removes its files.
func (s *Server) Stop() {
	s.Crash()
	_ = os.RemoveAll(s.dir)
}

func find() (string, error) {
	found, err := filepath.Glob("/usr/lib/postgresql/*/bin/postgres")
	if err != nil {
		return "", err
	}
	if len(found) == 0 {
		path, err := exec.LookPath("postgres")
		if err != nil {
			return "", ErrAbsent
		}
		return filepath.Dir(path), nil
	}
	slices.SortFunc(found, func(a, b string) int { return version(a) - version(b) })
	return filepath.Dir(found[len(found)-1]), nil
}

func version(path string) int {
	n, _ := strconv.Atoi(filepath.Base(filepath.Dir(filepath.Dir(path))))
	return n
}

func unprivileged() (*syscall.Credential, error) {
	u, err := user.Lookup("postgres")
	if err != nil {
		if u, err = user.Lookup("nobody"); err != nil {
			return nil, fmt.Errorf("find somebody to run postgres as: %w", err)
		}
	}
	uid, err := strconv.ParseUint(u.Uid, 10, 32)
	if err != nil {
		return nil, err
	}
	gid, err := strconv.ParseUint(u.Gid, 10, 32)
	if err != nil {
		return nil, err
	}
	return &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}, nil
}
