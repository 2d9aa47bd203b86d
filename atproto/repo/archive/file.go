package archive

import (
	"bufio"
	"fmt"
	"io"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/tidings-dev/tidings/atproto/block"
	"github.com/tidings-dev/tidings/atproto/repo/layout"
)

// BlockFile is a Blocks that keeps the blocks in a file and their index in memory.
// It must not be used concurrently.
type BlockFile struct {
	file  vfs.File
	out   *bufio.Writer
	index map[block.Digest]span
	size  int64
}

type span struct {
	at   int64
	size int
}

// NewBlockFile returns a BlockFile of an empty file. The caller closes and removes the
// file.
func NewBlockFile(file vfs.File) *BlockFile {
	return &BlockFile{file: file, out: bufio.NewWriterSize(file, 64<<10), index: map[block.Digest]span{}}
}

func (f *BlockFile) Put(digest, data []byte) error {
	n, err := f.out.Write(data)
	f.index[block.Digest(digest)] = span{f.size, n}
	f.size += int64(n)
	return layout.DiskFull(err)
}

func (f *BlockFile) Get(digest, buf []byte) (data []byte, ok bool, err error) {
	s, ok := f.index[block.Digest(digest)]
	if !ok {
		return buf, false, nil
	}
	if f.out.Buffered() > 0 {
		if err := f.out.Flush(); err != nil {
			return buf, false, layout.DiskFull(err)
		}
	}
	start := len(buf)
	data = append(buf, make([]byte, s.size)...)
	if _, err := f.file.ReadAt(data[start:], s.at); err != nil && err != io.EOF {
		return buf, false, fmt.Errorf("read imported block %s: %w", block.CID(digest), err)
	}
	return data, true, nil
}
