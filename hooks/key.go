package hooks

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"github.com/pocketbase/pocketbase/core"
	"github.com/pocketbase/pocketbase/tools/hook"

	"github.com/groundworkhq/groundwork/internal/seal"
)

// keyFileName is made beside the data folder, not in it: a copy of the data
// alone must not open what is sealed in it.
const keyFileName = "groundwork.key"

// bindKey makes the key available once the data folder exists. What other hooks
// do with it after the bootstrap comes later: inner handlers finish first.
func (g *groundwork) bindKey() {
	g.app.OnBootstrap().Bind(&hook.Handler[*core.BootstrapEvent]{
		Id: "groundwork.key.load", Priority: 100, Func: func(e *core.BootstrapEvent) error {
			if err := e.Next(); err != nil {
				return err
			}
			box := &keyBox{cfg: g.cfg, dataDir: e.App.DataDir()}
			g.box = box
			_, err := box.load(false)
			return err
		}})
	g.app.OnServe().Bind(&hook.Handler[*core.ServeEvent]{
		Id: "groundwork.key.make", Priority: priorityFirst, Func: func(e *core.ServeEvent) error {
			if _, err := g.box.load(true); err != nil {
				return err
			}
			return e.Next()
		}})
}

// keyBox seals and opens with the key of this installation. Where a key file is
// missing, it is made when the app serves or when something is sealed first: a
// command beside a server that has its key from elsewhere leaves no file behind.
type keyBox struct {
	cfg     Config
	dataDir string

	mu  sync.Mutex
	box *seal.Box // nil as long as there is no key
}

// load returns the box; nil when there is no key file and none is to be made.
func (k *keyBox) load(mayMake bool) (*seal.Box, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.box != nil {
		return k.box, nil
	}
	box, err := loadKey(k.cfg, k.dataDir, mayMake)
	k.box = box
	return box, err
}

// Seal implements [notifications.SecretBox].
func (k *keyBox) Seal(purpose string, plaintext []byte) ([]byte, error) {
	box, err := k.load(true)
	if err != nil {
		return nil, err
	}
	return box.Seal(purpose, plaintext)
}

// Key derives a key for one purpose from the key of this installation.
func (k *keyBox) Key(purpose string) ([]byte, error) {
	box, err := k.load(true)
	if err != nil {
		return nil, err
	}
	return box.Key(purpose)
}

// Open implements [notifications.SecretBox].
func (k *keyBox) Open(purpose string, sealed []byte) ([]byte, error) {
	box, err := k.load(false)
	if err != nil {
		return nil, err
	}
	if box == nil {
		return nil, seal.ErrWrongKey // no key made here could open it
	}
	return box.Open(purpose, sealed)
}

// loadKey returns the box for GROUNDWORK_KEY, or for the key file beside the
// data folder, which is made the first time outside production. It is nil when
// the file is missing and may not be made.
func loadKey(cfg Config, dataDir string, mayMake bool) (*seal.Box, error) {
	if cfg.Key != "" {
		box, err := seal.New([]byte(cfg.Key))
		if err != nil {
			return nil, fmt.Errorf("GROUNDWORK_KEY cannot be used: %w. Make one with: openssl rand -hex 32", err)
		}
		return box, nil
	}
	if cfg.Env == EnvProduction {
		return nil, errors.New("GROUNDWORK_KEY is missing. It is required in production: make one with openssl rand -hex 32, and keep it apart from the backups")
	}
	absolute, err := filepath.Abs(dataDir)
	if err != nil {
		return nil, fmt.Errorf("find data folder %s: %w", dataDir, err)
	}
	path := filepath.Join(filepath.Dir(absolute), keyFileName)
	raw, err := os.ReadFile(path)
	switch {
	case errors.Is(err, fs.ErrNotExist) && !mayMake:
		return nil, nil
	case errors.Is(err, fs.ErrNotExist):
		if raw, err = makeKeyFile(path); err != nil {
			return nil, fmt.Errorf("the key file %s cannot be made: %w. Set GROUNDWORK_KEY instead, or make the folder writable", path, err)
		}
	case err != nil:
		return nil, fmt.Errorf("the key file %s cannot be read: %w", path, err)
	}
	box, err := seal.New([]byte(strings.TrimSpace(string(raw))))
	if err != nil {
		return nil, fmt.Errorf("the key file %s cannot be used: %w. Restore it from where you kept a copy", path, err)
	}
	return box, nil
}

// makeKeyFile writes a new key. Two processes that start together agree on one:
// the file appears whole or not at all, and the loser reads the winner's.
func makeKeyFile(path string) ([]byte, error) {
	key := make([]byte, 32)
	_, _ = rand.Read(key) // never fails: it ends the process instead
	text := []byte(hex.EncodeToString(key) + "\n")
	temp, err := os.CreateTemp(filepath.Dir(path), keyFileName+".*") // mode 0600
	if err != nil {
		return nil, err
	}
	defer os.Remove(temp.Name())
	if _, err := temp.Write(text); err != nil {
		return nil, errors.Join(err, temp.Close())
	}
	if err := errors.Join(temp.Sync(), temp.Close()); err != nil {
		return nil, err
	}
	if err := os.Link(temp.Name(), path); errors.Is(err, fs.ErrExist) {
		return os.ReadFile(path)
	} else if err != nil {
		return nil, err
	}
	return text, nil
}

// MAC implements [accounts.Keyed].
func (k *keyBox) MAC(purpose string, parts ...string) ([]byte, error) {
	box, err := k.load(true)
	if err != nil {
		return nil, err
	}
	return box.MAC(purpose, parts...)
}
