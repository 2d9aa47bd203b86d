package backup

import (
	"context"
	"crypto/sha256"
	"errors"
	"io"
	"os"
)

// step is how many bytes are read before the progress is reported and the context asked.
const step = 1 << 20

// hashOf returns the SHA-256 of a file. read is called with the number of bytes read.
func hashOf(ctx context.Context, path string, read func(int64)) ([]byte, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	sum := sha256.New()
	_, err = pass(ctx, sum, file, read)
	return sum.Sum(nil), err
}

// copyFile copies a file with its time of modification to a new file, which is synced.
func copyFile(ctx context.Context, from, to string, read func(int64)) (sum []byte, size int64, err error) {
	in, err := os.Open(from)
	if err != nil {
		return nil, 0, err
	}
	defer in.Close()
	info, err := in.Stat()
	if err != nil {
		return nil, 0, err
	}
	out, err := os.OpenFile(to, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, 0, err
	}
	hash := sha256.New()
	size, err = pass(ctx, io.MultiWriter(out, hash), in, read)
	if err == nil {
		err = out.Sync()
	}
	err = errors.Join(err, out.Close())
	if err == nil {
		err = os.Chtimes(to, info.ModTime(), info.ModTime())
	}
	return hash.Sum(nil), size, err
}

// pass copies until the end or until ctx ends.
func pass(ctx context.Context, to io.Writer, from io.Reader, read func(int64)) (size int64, err error) {
	for {
		n, err := io.CopyN(to, from, step)
		size += n
		read(n)
		if err == io.EOF {
			return size, nil
		}
		if err == nil {
			err = ctx.Err()
		}
		if err != nil {
			return size, err
		}
	}
}

// LinkOrCopy makes a link to a file or, if the file system cannot do that, a copy.
func LinkOrCopy(ctx context.Context, from, to string) error {
	if os.Link(from, to) == nil {
		return nil
	}
	return Copy(ctx, from, to)
}

// Copy copies a file with its time of modification to a new file, which is synced and
// that only its owner can read.
func Copy(ctx context.Context, from, to string) error {
	_, _, err := copyFile(ctx, from, to, func(int64) {})
	return err
}
