//go:build linux || darwin || freebsd

package schedules

import "syscall"

// diskSpace is the room on the disk of a folder, in bytes: what this process may use,
// and all there is.
func diskSpace(dir string) (free, total uint64, err error) {
	var fs syscall.Statfs_t
	if err := syscall.Statfs(dir, &fs); err != nil {
		return 0, 0, err
	}
	block := uint64(fs.Bsize)
	return uint64(max(0, fs.Bavail)) * block, fs.Blocks * block, nil
}
