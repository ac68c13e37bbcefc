package javascript

import (
	"bytes"
	_ "embed"
	"fmt"
	"os"
	"path/filepath"
)

// TypesFileName is the file in the data folder with the declarations for editors,
// beside PocketBase's types.d.ts.
const TypesFileName = "groundwork.d.ts"

//go:embed groundwork.d.ts
var types []byte

// WriteTypes writes the declarations into dir, unless they are there already.
func WriteTypes(dir string) error {
	path := filepath.Join(dir, TypesFileName)
	if there, err := os.ReadFile(path); err == nil && bytes.Equal(there, types) {
		return nil
	}
	if err := os.WriteFile(path, types, 0o644); err != nil {
		return fmt.Errorf("write declarations for JavaScript hooks: %w", err)
	}
	return nil
}
