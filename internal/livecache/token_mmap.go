//go:build linux || darwin || freebsd

package livecache

import (
	"os"
	"sync/atomic"
	"syscall"
	"unsafe"
)

// mapWord maps the file's first eight bytes for reading, or returns nil (some
// network and FUSE file systems have no shared mappings). On these systems a
// mapping and WriteAt see the same memory; not everywhere else.
func mapWord(f *os.File) (word *atomic.Uint64, unmap func()) {
	page, err := syscall.Mmap(int(f.Fd()), 0, tokenSize, syscall.PROT_READ, syscall.MAP_SHARED)
	if err != nil {
		return nil, nil
	}
	// A mapping starts at a page, so the word is aligned.
	return (*atomic.Uint64)(unsafe.Pointer(unsafe.SliceData(page))), func() { _ = syscall.Munmap(page) }
}
