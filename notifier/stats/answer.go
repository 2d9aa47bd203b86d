package stats

import (
	"encoding/json"
	"net/http"
	"strconv"
)

// answer writes v as JSON.
func answer(w http.ResponseWriter, v any) {
	b, err := json.Marshal(v)
	if err != nil {
		fail(w, http.StatusInternalServerError, "InternalServerError", "the answer can't be written as JSON")
		return
	}
	write(w, http.StatusOK, b)
}

func write(w http.ResponseWriter, status int, body []byte) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Content-Length", strconv.Itoa(len(body)+1))
	w.WriteHeader(status)
	w.Write(append(body, '\n'))
}

func fail(w http.ResponseWriter, status int, name, message string) {
	failWith(w, status, name, message, false)
}

func failWith(w http.ResponseWriter, status int, name, message string, degraded bool) {
	b, _ := json.Marshal(struct {
		Error    string `json:"error"`
		Message  string `json:"message"`
		Degraded bool   `json:"degraded,omitempty"`
	}{name, message, degraded})
	write(w, status, b)
}
