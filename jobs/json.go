package jobs

import (
	"bytes"
	"strconv"
)

// cleanJSON replaces what JSON may say and Postgres cannot store: the character 0,
// and halves of a surrogate pair. JavaScript writes both. Others are left alone.
func cleanJSON(raw []byte) []byte {
	if !bytes.Contains(raw, []byte(`\u`)) {
		return raw
	}
	unit := func(i int) (rune, bool) {
		if i+6 > len(raw) || raw[i] != '\\' || raw[i+1] != 'u' {
			return 0, false
		}
		n, err := strconv.ParseUint(string(raw[i+2:i+6]), 16, 16)
		return rune(n), err == nil
	}
	clean := make([]byte, 0, len(raw))
	for i := 0; i < len(raw); {
		if raw[i] != '\\' || i+1 == len(raw) {
			clean = append(clean, raw[i])
			i++
			continue
		}
		length := 2
		if r, ok := unit(i); ok {
			length = 6
			switch {
			case r == 0, r >= 0xDC00 && r <= 0xDFFF:
				clean = append(clean, `\ufffd`...)
				i += length
				continue
			case r >= 0xD800 && r <= 0xDBFF:
				if low, ok := unit(i + 6); ok && low >= 0xDC00 && low <= 0xDFFF {
					length = 12
					break
				}
				clean = append(clean, `\ufffd`...)
				i += length
				continue
			}
		}
		clean = append(clean, raw[i:i+length]...)
		i += length
	}
	return clean
}
