package cli

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
)

// Exists reports whether there is a file or folder.
func Exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// CreateFile writes a new file, completely or not at all.
func CreateFile(path string, write func(io.Writer) error) (err error) {
	if Exists(path) {
		return fmt.Errorf("%s already exists and is not overwritten", path)
	}
	if dir := filepath.Dir(path); !Exists(dir) {
		return fmt.Errorf("the folder %s does not exist", dir)
	}
	file, err := os.CreateTemp(filepath.Dir(path), ".export-*")
	if err != nil {
		return err
	}
	defer os.Remove(file.Name())
	if err := errors.Join(write(file), file.Sync(), file.Close()); err != nil {
		return err
	}
	return os.Link(file.Name(), path) // unlike a rename, a link does not replace a file
}
