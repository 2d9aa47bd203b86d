package admin

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"path/filepath"
	"time"

	"github.com/tidings-dev/tidings/internal/backup"
)

// ErrBackupRunning means that a backup is being written.
var ErrBackupRunning = errors.New("another backup is being written: wait until it ends")

// A BackupRequest is the body of POST /v1/backup.
type BackupRequest struct {
	Dir   string `json:"dir"`             // absolute, as the process sees it
	NoKey bool   `json:"noKey,omitempty"` // without the signing keys
}

// Backup writes a backup. progress is called with bytes.
type Backup func(ctx context.Context, q BackupRequest, progress func(done, total int64)) (backup.Result, error)

// BackupNews is a line of the response: the progress, or at the end the result or the
// error.
type BackupNews struct {
	Done   int64          `json:"doneBytes,omitempty"`
	Total  int64          `json:"totalBytes,omitempty"`
	Result *backup.Result `json:"result,omitempty"`
	*Problem
}

const (
	newsInterval = 500 * time.Millisecond // between two lines about the progress
	newsTimeout  = 30 * time.Second       // to write a line
)

// backup sends the progress as lines of JSON, since a backup takes longer than other
// requests. An error before the first line has a status of its own.
func (h *handler) backup(w http.ResponseWriter, r *http.Request) {
	var q BackupRequest
	d := json.NewDecoder(r.Body)
	d.DisallowUnknownFields()
	if err := d.Decode(&q); err != nil || !filepath.IsAbs(q.Dir) {
		invalid(w, `the body must be JSON with an absolute path, such as {"dir":"/backups/tidings"}`)
		return
	}
	out := &newsWriter{w: w, control: http.NewResponseController(w)}
	_ = out.control.SetWriteDeadline(time.Time{}) // the server's is for short requests
	result, err := h.Backup(r.Context(), q, out.progress)
	switch {
	case err == nil:
		out.send(BackupNews{Result: &result})
	case out.begun:
		h.Log.Error("a backup failed", "dir", q.Dir, "error", err)
		out.send(BackupNews{Problem: &Problem{"BackupFailed", err.Error()}})
	case errors.Is(err, ErrBackupRunning):
		fail(w, http.StatusConflict, "Conflict", err.Error())
	default:
		h.Log.Error("a backup failed", "dir", q.Dir, "error", err)
		fail(w, http.StatusInternalServerError, "BackupFailed", err.Error())
	}
}

// newsWriter writes the response of a backup.
type newsWriter struct {
	w       http.ResponseWriter
	control *http.ResponseController
	begun   bool
	last    time.Time
}

func (n *newsWriter) progress(done, total int64) {
	if now := time.Now(); now.Sub(n.last) >= newsInterval {
		n.last = now
		n.send(BackupNews{Done: done, Total: total})
	}
}

// send writes a line. If the client has gone, the context of the request ends.
func (n *newsWriter) send(v BackupNews) {
	line, err := json.Marshal(v)
	if err != nil {
		return
	}
	if !n.begun {
		n.begun = true
		n.w.Header().Set("Content-Type", "application/jsonl")
	}
	_ = n.control.SetWriteDeadline(time.Now().Add(newsTimeout))
	_, _ = n.w.Write(append(line, '\n'))
	_ = n.control.Flush()
	_ = n.control.SetWriteDeadline(time.Time{})
}

// Backup lets the running process write a backup. The error is ErrNotRunning, a
// *StatusError, or one of the connection.
func (c *Client) Backup(ctx context.Context, q BackupRequest, progress func(done, total int64)) (backup.Result, error) {
	body, err := json.Marshal(q)
	if err != nil {
		return backup.Result{}, err
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://tidings/v1/backup", bytes.NewReader(body))
	if err != nil {
		return backup.Result{}, err
	}
	patient := http.Client{Transport: c.http.Transport} // without a limit of time
	res, err := do(&patient, r)
	if err != nil {
		return backup.Result{}, err
	}
	defer res.Body.Close()
	lines := bufio.NewScanner(res.Body)
	for lines.Scan() {
		var news BackupNews
		if err := json.Unmarshal(lines.Bytes(), &news); err != nil {
			return backup.Result{}, fmt.Errorf("decode the answer of the admin API: %w", err)
		}
		switch {
		case news.Problem != nil:
			return backup.Result{}, &StatusError{Status: http.StatusInternalServerError, Problem: *news.Problem}
		case news.Result != nil:
			return *news.Result, nil
		}
		progress(news.Done, news.Total)
	}
	return backup.Result{}, errors.Join(errors.New("the registry has stopped before the backup was complete"), lines.Err())
}
