//go:build !linux && !darwin && !freebsd

package schedules

import "errors"

func diskSpace(string) (free, total uint64, err error) {
	return 0, 0, errors.New("the room on the disk is not known on this system")
}
