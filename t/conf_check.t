# Each file of nginx-conf/ passes nginx -t as it is, whatever prefix it gets.
use v5.36;
use Test::More;
use FindBin;
use CC::Modules;
use CC::Proc;
use CC::Server;

my $root = "$FindBin::Bin/..";
my @confs = map { s{^\Q$root\E/}{}r } glob "$root/nginx-conf/*.conf $root/nginx-conf/*/*.conf";
cmp_ok scalar(@confs), '>=', 3, 'there are some';

my $load = join ' ', map { "load_module $_;" } CC::Modules::pick(module => 1);
for my $name (@confs) {
    my $s = CC::Server->new(raw => '');
    my $text = CC::Proc::slurp("$root/$name");
    # the line is right from the file's own folder, which is another one here
    my $up = '../' x (() = $name =~ m{/}g);
    $text =~ s{^include \Q$up\Eobjs/modules\.conf;}{$load}m or fail "$name: no include of the modules";
    # so are what it includes, and the secret that make demo writes
    for my $part (glob "$root/$name" =~ s{[^/]+$}{shared/*.conf}r) {
        my $shared = CC::Proc::slurp($part) =~ s{(?<=cc_secret_file )\S+;}{secret;}r;
        $s->write('conf/shared/' . $part =~ s{.*/}{}r, $shared);
    }
    chmod 0600, $s->write('conf/secret', 's' x 64);
    my $file = $s->write('conf/nginx.conf', $text);
    my ($code, $output) = $s->nginx('-t', '-c', $file);
    is $code, 0, "$name passes nginx -t" or diag $output;
    unlike $output, qr/\[(?:warn|error|alert)\]/, "$name: and has nothing to say";
}

done_testing;
