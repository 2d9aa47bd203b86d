package remotetest

import (
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"strings"
	"time"

	"github.com/bluesky-social/indigo/atproto/syntax"

	"github.com/tidings-dev/tidings/atproto/lexicon"
)

const keyHeader = "Idempotency-Key"

type record struct {
	rkey  string
	layer lexicon.Layer
}

// statusWriter notes the status of an answer.
type statusWriter struct {
	http.ResponseWriter
	status int
}

func (w *statusWriter) WriteHeader(status int) {
	w.status = status
	w.ResponseWriter.WriteHeader(status)
}

func (s *Server) notifyManifest(out http.ResponseWriter, r *http.Request) {
	w := &statusWriter{ResponseWriter: out}
	body, err := io.ReadAll(io.LimitReader(r.Body, 1_000_001))
	if err != nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	call := Call{Input: body, Key: r.Header.Get(keyHeader)}
	defer func() { call.Status = w.status; s.calls = append(s.calls, call) }()
	token, _ := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
	if f := s.refusal; f != nil {
		maps.Copy(w.Header(), f.header)
		w.WriteHeader(f.status)
		_, _ = io.WriteString(w, strings.ReplaceAll(f.body, "$TOKEN", token))
		return
	}
	claims, err := s.verify(token, lexicon.NSIDNotifyManifest)
	call.Audience = claims.Audience
	if err != nil {
		refuse(w, http.StatusUnauthorized, "AuthenticationRequired", err.Error())
		return
	}
	if s.cfg.Keys {
		w.Header().Set(keyHeader, call.Key)
	}
	switch {
	case r.Method != http.MethodPost, r.Header.Get("Content-Type") != "application/json", r.ContentLength != int64(len(body)):
		refuse(w, http.StatusBadRequest, "InvalidRequest", "not a JSON body of a known length")
	case len(body) > 1_000_000:
		refuse(w, http.StatusRequestEntityTooLarge, "PayloadTooLargeError", "request entity too large")
	default:
		s.apply(w, claims.Issuer, call)
	}
}

// apply applies a call. The caller must hold mu.
func (s *Server) apply(w http.ResponseWriter, issuer string, call Call) {
	object, err := lexicon.Input(lexicon.NSIDNotifyManifest, call.Input)
	if err != nil {
		refuse(w, http.StatusBadRequest, "InvalidRequest", err.Error())
		return
	}
	in := lexicon.ReadNotifyManifest(object)
	pull := in.Operation == lexicon.OperationPull
	switch {
	case !pull && in.Operation != "" && in.Operation != lexicon.OperationPush:
		refuse(w, http.StatusBadRequest, "InvalidOperation", "operation must be push or pull")
		return
	case !pull && s.failing != "" && in.Repository == s.failing:
		refuse(w, http.StatusInternalServerError, "InternalServerError", "this repository makes it fail")
		return
	case !pull && in.Visibility != lexicon.VisibilityPrivate && s.invalidRecord(in) != nil:
		refuse(w, http.StatusBadRequest, "InvalidRequest", s.invalidRecord(in).Error())
		return
	case !pull && in.UserDID != issuer:
		refuse(w, http.StatusForbidden, "UserMismatch", fmt.Sprintf("%s is not %s", issuer, in.UserDID))
		return
	}
	if done, ok := s.answers[call.Key]; ok && s.cfg.Keys {
		reply(w, http.StatusOK, done)
		return
	}
	out := lexicon.NotifyManifestOutput{Success: true, Operation: lexicon.OperationPull, StatsUpdated: true}
	if !pull {
		created := 0
		if in.Visibility != lexicon.VisibilityPrivate {
			if created, err = s.writeLayers(in); err != nil {
				refuse(w, http.StatusInternalServerError, "InternalServerError", err.Error())
				return
			}
		}
		out.Operation, out.LayersCreated, out.PostCreated = lexicon.OperationPush, &created, new(bool)
	}
	s.count(in, pull)
	s.answers[call.Key] = out
	reply(w, http.StatusOK, out)
}

// writeLayers writes a record for each layer, one after the other. The caller must hold
// mu.
func (s *Server) writeLayers(in lexicon.NotifyManifestInput) (created int, err error) {
	interrupt := s.interrupt
	s.interrupt = -1
	for created < len(in.Manifest.Layers) && created != interrupt {
		s.tid = max(s.tid+1, s.now().UnixMicro())
		s.records = append(s.records, record{syntax.NewTID(s.tid, 1).String(), s.layer(in, created)})
		created++
	}
	if created == interrupt {
		return created, fmt.Errorf("interrupted after %d layers", created)
	}
	return created, nil
}

// layer is the record of a layer.
func (s *Server) layer(in lexicon.NotifyManifestInput, i int) lexicon.Layer {
	d := in.Manifest.Layers[i]
	return lexicon.Layer{
		Digest: d.Digest, Size: d.Size, MediaType: d.MediaType, UserDID: in.UserDID,
		Manifest: lexicon.ManifestURI(in.UserDID, in.ManifestDigest), CreatedAt: s.now().UTC().Format(time.RFC3339),
	}
}

// invalidRecord returns an error if a record of a push does not conform to its schema, whose
// limits are lower than those of the input.
func (s *Server) invalidRecord(in lexicon.NotifyManifestInput) error {
	for i := range in.Manifest.Layers {
		raw, err := json.Marshal(s.layer(in, i))
		if err != nil {
			return err
		}
		encoded, err := lexicon.FromJSON(raw)
		if err != nil {
			return err
		}
		if _, err := lexicon.Validate(lexicon.NSIDLayer, encoded); err != nil {
			return fmt.Errorf("layer %d: %w", i, err)
		}
	}
	return nil
}

// count counts a call. The caller must hold mu.
func (s *Server) count(in lexicon.NotifyManifestInput, pull bool) {
	repository := in.UserDID + "/" + in.Repository
	c := s.counts[repository]
	if pull {
		c.Pulls++
	} else {
		c.Pushes++
	}
	s.counts[repository] = c
}
