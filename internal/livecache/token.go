package livecache

import (
	"encoding/binary"
	"os"
	"runtime"
	"sync/atomic"
)

const tokenSize = 8

// token is a number in a file that all processes on a data folder share. Its
// value means nothing; that it differs from the one before does.
type token struct {
	file *os.File

	// word is the file's content in memory, shared with the other processes; nil
	// where the system cannot do that, and then the file is read.
	word *atomic.Uint64
}

// openToken opens or makes the file.
//
// Reading goes through the mapping, which costs no system call. Writing goes
// through the file: on a full disk that is an error, where a store into a
// mapping would end the process. What would still end it is somebody who cuts
// the file short under us; SQLite's own data.db-shm has the same property.
func openToken(path string) (*token, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		return nil, err
	}
	stat, err := f.Stat()
	if err == nil && stat.Size() < tokenSize {
		// Not by writing zeros: another process may have written a token meanwhile,
		// and this leaves it alone.
		err = f.Truncate(tokenSize)
	}
	if err != nil {
		_ = f.Close()
		return nil, err
	}
	t := &token{file: f}
	if word, unmap := mapWord(f); word != nil {
		t.word = word
		// Not in close: somebody may be reading just then.
		runtime.AddCleanup(t, func(unmap func()) { unmap() }, unmap)
	}
	return t, nil
}

func (t *token) read() uint64 {
	if t.word != nil {
		v := t.word.Load()
		runtime.KeepAlive(t)
		return v
	}
	var b [tokenSize]byte
	// Two processes that write at once can make a reader see half of each: a token
	// all the same, and the next read differs. After close: 0.
	if _, err := t.file.ReadAt(b[:], 0); err != nil {
		return 0
	}
	return binary.NativeEndian.Uint64(b[:])
}

func (t *token) write(v uint64) error {
	var b [tokenSize]byte
	binary.NativeEndian.PutUint64(b[:], v)
	_, err := t.file.WriteAt(b[:], 0)
	return err
}

func (t *token) close() { _ = t.file.Close() }
