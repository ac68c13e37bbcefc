package dashboard

import (
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"fmt"
	"io/fs"
	"sync"
)

// Name is the extension's own, and part of the address of its files:
// /_/extensions/groundwork/….
const Name = "groundwork"

//go:embed ui
var embedded embed.FS

// Files returns the extension as PocketBase takes it: with main.js at the top.
func Files() fs.FS {
	files, err := fs.Sub(embedded, "ui")
	if err != nil {
		panic(err) // the name above is a constant
	}
	return files
}

// Version changes whenever one of the files does. It has 16 hexadecimal digits.
var Version = sync.OnceValue(func() string {
	sum := sha256.New()
	err := fs.WalkDir(embedded, ".", func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		content, err := embedded.ReadFile(path)
		fmt.Fprintf(sum, "%s %d\n%s", path, len(content), content)
		return err
	})
	if err != nil {
		panic(err) // they are in the binary
	}
	return hex.EncodeToString(sum.Sum(nil))[:16]
})
