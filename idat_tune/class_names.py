"""The names of the classes, in the order of the labels, where both are public facts."""


def _words(text: str) -> tuple[str, ...]:
    return tuple(word.replace("_", " ") for word in text.split())


# Tasks that are missing here (caltech101, oxford_flowers102, sun397, dmlab): their order could not be made sure of.
CLASS_NAMES: dict[str, tuple[str, ...]] = {
    "cifar": _words("""
        apple aquarium_fish baby bear beaver bed bee beetle bicycle bottle bowl boy bridge bus butterfly camel can
        castle caterpillar cattle chair chimpanzee clock cloud cockroach couch crab crocodile cup dinosaur dolphin
        elephant flatfish forest fox girl hamster house kangaroo keyboard lamp lawn_mower leopard lion lizard lobster
        man maple_tree motorcycle mountain mouse mushroom oak_tree orange orchid otter palm_tree pear pickup_truck
        pine_tree plain plate poppy porcupine possum rabbit raccoon ray road rocket rose sea seal shark shrew skunk
        skyscraper snail snake spider squirrel streetcar sunflower sweet_pepper table tank telephone television tiger
        tractor train trout tulip turtle wardrobe whale willow_tree wolf woman worm
    """),
    "dtd": _words("""
        banded blotchy braided bubbly bumpy chequered cobwebbed cracked crosshatched crystalline dotted fibrous flecked
        freckled frilly gauzy grid grooved honeycombed interlaced knitted lacelike lined marbled matted meshed paisley
        perforated pitted pleated polka-dotted porous potholed scaly smeared spiralled sprinkled stained stratified
        striped studded swirly veined waffled woven wrinkled zigzagged
    """),
    "oxford_iiit_pet": _words("""
        Abyssinian American_Bulldog American_Pit_Bull_Terrier Basset_Hound Beagle Bengal Birman Bombay Boxer
        British_Shorthair Chihuahua Egyptian_Mau English_Cocker_Spaniel English_Setter German_Shorthaired
        Great_Pyrenees Havanese Japanese_Chin Keeshond Leonberger Maine_Coon Miniature_Pinscher Newfoundland Persian
        Pomeranian Pug Ragdoll Russian_Blue Saint_Bernard Samoyed Scottish_Terrier Shiba_Inu Siamese Sphynx
        Staffordshire_Bull_Terrier Wheaten_Terrier Yorkshire_Terrier
    """),
    "svhn": tuple("0123456789"),
    "patch_camelyon": ("no tumor", "tumor"),
    "eurosat": _words("""
        annual_crop forest herbaceous_vegetation highway industrial pasture permanent_crop residential river sea_or_lake
    """),
    "resisc45": _words("""
        airplane airport baseball_diamond basketball_court beach bridge chaparral church circular_farmland cloud
        commercial_area dense_residential desert forest freeway golf_course ground_track_field harbor industrial_area
        intersection island lake meadow medium_residential mobile_home_park mountain overpass palace parking_lot railway
        railway_station rectangular_farmland river roundabout runway sea_ice ship snowberg sparse_residential stadium
        storage_tank tennis_court terrace thermal_power_station wetland
    """),
    "diabetic_retinopathy": ("none", "mild", "moderate", "severe", "proliferative"),
    "clevr_count": tuple(f"{count} objects" for count in range(3, 11)),
    "clevr_dist": ("up to 8", "8 to 8.5", "8.5 to 9", "9 to 9.5", "9.5 to 10", "beyond 10"),
    "kitti": ("up to 8 m", "8 to 20 m", "beyond 20 m", "no vehicle"),
    "dsprites_loc": tuple(f"column {column}" for column in range(16)),
    "dsprites_ori": tuple(f"orientation {bucket}" for bucket in range(16)),
    "smallnorb_azi": tuple(f"{20 * label} degrees" for label in range(18)),
    "smallnorb_ele": tuple(f"{30 + 5 * label} degrees" for label in range(9)),
}
