package holdcmd

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"time"

	"github.com/distribution/distribution/v3/configuration"
	"github.com/spf13/cobra"
	"golang.org/x/crypto/acme"
	"golang.org/x/crypto/acme/autocert"

	"github.com/tidings-dev/tidings/cmd/tidings/internal/cli"
	"github.com/tidings-dev/tidings/middleware"
)

// drainTimeout bounds the requests that are in progress at shutdown.
const drainTimeout = 10 * time.Second

func holdServeCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "serve <config>",
		Short: "`hold serve` serves the account without the registry",
		Long: "`hold serve` serves XRPC, the well-known files and the firehose at http.addr of the options, or else at the registry's http.addr\n" +
			"with the registry's certificate. It serves no pushes or pulls. If hold.registries or hold.owners is set, it also records what those\n" +
			"report, and serves the API. The registry must be stopped: both lock the data folder.",
		Example:      "  tidings hold serve config.yml",
		Args:         cobra.MaximumNArgs(1),
		SilenceUsage: true,
		RunE: cli.Run(func(ctx context.Context, cmd *cobra.Command, args []string) error {
			return holdServe(ctx, cmd.ErrOrStderr(), args)
		}),
	}
}

func holdServe(ctx context.Context, log io.Writer, args []string) (err error) {
	o, path, err := holdOptions(args)
	if err != nil {
		return err
	}
	c, _, err := cli.Load([]string{path})
	if err != nil {
		return err
	}
	h, err := middleware.OpenHold(c)
	if err != nil {
		return err
	}
	if addr := h.Addr(); addr != "" {
		fmt.Fprintf(log, "%s is served at http://%s\n", o.Hold.Hostname, addr)
		<-ctx.Done()
		return closeHold(h)
	}
	config, err := holdTLS(c.HTTP)
	if err != nil {
		return errors.Join(err, closeHold(h))
	}
	socket, err := net.Listen("tcp", c.HTTP.Addr)
	if err != nil {
		return errors.Join(fmt.Errorf("listen at http.addr %q: %w", c.HTTP.Addr, err), closeHold(h))
	}
	server := &http.Server{
		Handler:           h.Routes(),
		TLSConfig:         config,
		ReadHeaderTimeout: 10 * time.Second,
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    64 << 10,
		ErrorLog:          slog.NewLogLogger(slog.NewTextHandler(log, nil), slog.LevelWarn),
	}
	scheme := "http"
	serve := server.Serve
	if config != nil {
		scheme = "https"
		serve = func(l net.Listener) error { return server.ServeTLS(l, "", "") }
	}
	fmt.Fprintf(log, "%s is served at %s://%s\n", o.Hold.Hostname, scheme, socket.Addr())
	ended := make(chan error, 1)
	go func() { ended <- serve(socket) }()
	select {
	case err = <-ended: // without a signal
	case <-ctx.Done():
	}
	// The server does not track subscribers' connections, which are hijacked; the hold closes them.
	drain, cancel := context.WithTimeout(context.Background(), drainTimeout)
	defer cancel()
	return errors.Join(err, server.Shutdown(drain), closeHold(h))
}

func closeHold(h *middleware.Handler) error {
	ctx, cancel := context.WithTimeout(context.Background(), cli.CloseTimeout)
	defer cancel()
	return h.Close(ctx)
}

// holdTLS translates the registry's http.tls; nil is plain HTTP.
func holdTLS(c configuration.HTTP) (*tls.Config, error) {
	t := c.TLS
	if t.Certificate == "" && t.LetsEncrypt.CacheFile == "" {
		return nil, nil
	}
	if len(t.ClientCAs) > 0 {
		return nil, fmt.Errorf("http.tls.clientcas: the account is public, and its clients have no certificates: remove it, or set http.addr in the options")
	}
	config := &tls.Config{MinVersion: tls.VersionTLS12, NextProtos: []string{"h2", "http/1.1"}}
	switch t.MinimumTLS {
	case "", "tls1.2":
	case "tls1.3":
		config.MinVersion = tls.VersionTLS13
	default:
		return nil, fmt.Errorf("http.tls.minimumtls: %q is neither tls1.2 nor tls1.3", t.MinimumTLS)
	}
	if t.LetsEncrypt.CacheFile != "" {
		if t.Certificate != "" {
			return nil, fmt.Errorf("http.tls has both a certificate and letsencrypt: configure one of them")
		}
		m := &autocert.Manager{
			HostPolicy: autocert.HostWhitelist(t.LetsEncrypt.Hosts...),
			Cache:      autocert.DirCache(t.LetsEncrypt.CacheFile),
			Email:      t.LetsEncrypt.Email,
			Prompt:     autocert.AcceptTOS,
		}
		if t.LetsEncrypt.DirectoryURL != "" {
			m.Client = &acme.Client{DirectoryURL: t.LetsEncrypt.DirectoryURL}
		}
		config.GetCertificate = m.GetCertificate
		config.NextProtos = append(config.NextProtos, acme.ALPNProto)
		return config, nil
	}
	pair, err := tls.LoadX509KeyPair(t.Certificate, t.Key)
	if err != nil {
		return nil, fmt.Errorf("http.tls: %w", err)
	}
	config.Certificates = []tls.Certificate{pair}
	return config, nil
}
