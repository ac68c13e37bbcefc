package process

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"
)

// Worker is `groundwork worker` in a process and a folder of its own.
type Worker struct {
	Binary, Dir string   // the file, and the folder that it runs in
	Host        string   // what it is called
	Env         []string // besides PATH and HOME
	Args        []string // besides its name
	cmd         *exec.Cmd
}

// Start starts the process and waits until it says that it has started.
func (w *Worker) Start() error {
	path := filepath.Join(w.Dir, "log")
	out, err := os.OpenFile(path, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer out.Close() // the process has its own copy
	binary, err := filepath.Abs(w.Binary)
	if err != nil {
		return err
	}
	w.cmd = exec.Command(binary, append([]string{"worker", "--host", w.Host}, w.Args...)...)
	w.cmd.Dir, w.cmd.Stdout, w.cmd.Stderr = w.Dir, out, out
	w.cmd.Env = append([]string{"PATH=" + os.Getenv("PATH"), "HOME=" + w.Dir}, w.Env...)
	if err := w.cmd.Start(); err != nil {
		return fmt.Errorf("%w (make build makes the binary)", err)
	}
	for deadline := time.Now().Add(3 * time.Minute); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) { // between two looks
		if log, err := os.ReadFile(path); err == nil && bytes.Contains(log, []byte("worker started")) {
			return nil
		}
	}
	w.Kill()
	tail, _ := os.ReadFile(path)
	return fmt.Errorf("the worker did not start: %s", tail[max(0, len(tail)-2000):])
}

// Kill is SIGKILL.
func (w *Worker) Kill() {
	if w.cmd == nil || w.cmd.Process == nil || w.cmd.ProcessState != nil {
		return
	}
	_ = w.cmd.Process.Kill()
	_ = w.cmd.Wait()
}

// Stop is SIGTERM; it returns when the process has ended.
func (w *Worker) Stop() error {
	if w.cmd == nil || w.cmd.Process == nil || w.cmd.ProcessState != nil {
		return nil
	}
	if err := w.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		return err
	}
	return w.cmd.Wait()
}

// Files returns an error when the worker left anything in its folder but its log.
func (w *Worker) Files() error {
	found, err := os.ReadDir(w.Dir)
	if err != nil {
		return err
	}
	for _, f := range found {
		if f.Name() != "log" {
			return errors.New("the worker has made " + f.Name() + " in its folder")
		}
	}
	return nil
}
