//go:build linux || darwin

package hooks

import "syscall"

// freeBytes is how much room there is for this process where a folder is.
func freeBytes(dir string) (int64, error) {
	var s syscall.Statfs_t
	if err := syscall.Statfs(dir, &s); err != nil {
		return 0, err
	}
	return int64(s.Bavail) * int64(s.Bsize), nil
}
